"""Text piece by piece: nothing is ever taken back, and together the pieces are the whole."""

import random

import pytest

import tiny
from graftlm.data.tokenizers import Tokenizers
from graftlm.serving.text_stream import TextStream


def decode(ids: list[int]) -> str:
    return Tokenizers(tiny.tokenizer(), tiny.tokenizer()).decode(ids)


def pieces(ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    """What each id gives, and the rest at the end."""
    stream = TextStream(decode, stop)
    return [*[stream.push(token) for token in ids], stream.flush()], stream


def ids_of(text: str) -> list[int]:
    return tiny.tokenizer()(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", ["the lazy dog", "né 日本 🦊🦊 é", " leading", "a\ufffdb", "e\u0301\u0302"])
def test_characters_come_whole(text: str) -> None:
    given, _ = pieces(ids_of(text))
    assert "".join(given) == text
    assert all(text.startswith("".join(given[:n])) for n in range(len(given)))


def test_bytes_that_are_no_text_come_out_as_the_tokenizer_writes_them() -> None:
    generator = random.Random(0)
    for _ in range(100):
        ids = [generator.randrange(tiny.VOCABULARY) for _ in range(30)]
        assert "".join(pieces(ids)[0]) == decode(ids)


def test_half_a_character_at_the_end_is_not_lost() -> None:
    ids = ids_of("a🦊")[:-1]
    given, _ = pieces(ids)
    assert given[:-1] == ["a", "", "", ""]
    assert "".join(given) == decode(ids) != "a"


def test_words_after_a_metaspace_keep_their_spaces() -> None:
    words = ["▁the", "▁fox", "s", "", "▁"]

    def metaspace(ids: list[int]) -> str:
        return "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" ")

    stream = TextStream(metaspace)
    given = [stream.push(i) for i in (0, 1, 2, 3, 1, 4, 1)]
    assert given == ["the", " fox", "s", "", " fox", " ", " fox"]


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("the lazy dog", ("lazy",), "the "),
        ("the lazy dog", ("dog", "zy"), "the la"),
        ("ab##c###d", ("###",), "ab##c"),
        ("ab##", ("###",), "ab##"),
        ("aab", ("ab",), "a"),
        ("né日本", ("日",), "né"),
        ("the", ("the lazy",), "the"),
        ("xaby", ("abyz", "b"), "xa"),
    ],
)
def test_stop_texts_are_never_shown(text: str, stop: tuple[str, ...], expected: str) -> None:
    given, stream = pieces(ids_of(text), stop)
    assert "".join(given) == expected
    assert stream.stopped == (expected != text)


def test_nothing_follows_a_stop_text() -> None:
    given, stream = pieces(ids_of("one two three"), ("two",))
    assert "".join(given) == "one "
    assert given[-1] == ""
    assert stream.stopped


def test_the_cost_of_a_token_does_not_grow() -> None:
    longest = 0

    def counted(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    stream = TextStream(counted)
    for token in ids_of("the lazy dog and 日本 " * 20):
        stream.push(token)
    assert longest <= 8
