"""ROUGE, token F1 and accuracy against published examples and against numbers worked out by hand."""

import random

import pytest

from graftlm.evaluation.metrics import REGISTRY
from graftlm.evaluation.metrics.accuracy import accuracy
from graftlm.evaluation.metrics.rouge_l import common_subsequence, rouge_l
from graftlm.evaluation.metrics.rouge_n import rouge1, rouge2, words
from graftlm.evaluation.metrics.token_f1 import answer_words, token_f1


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("police kill the gunman", {"rouge2": 1 / 3, "rougeL": 3 / 4}), ("the gunman kill police", {"rougeL": 2 / 4})],
)
def test_the_example_of_the_rouge_paper(prediction: str, expected: dict[str, float]) -> None:
    """W04-1013, section 3.1: sentences of four words each, so that precision, recall and F1 are the same."""
    for name, value in expected.items():
        assert REGISTRY[name]([prediction], [["police killed the gunman"]]).value == pytest.approx(100 * value)


@pytest.mark.parametrize(
    ("name", "prediction", "value"),
    [
        ("rouge1", "testing", 1 / 2),
        ("rouge1", "testing one", 4 / 5),
        ("rouge2", "testing one", 2 / 3),
        ("rougeL", "testing one", 4 / 5),
        ("rougeL", "testing two", 4 / 5),
        ("rouge1", "", 0),
        ("rougeL", "/", 0),
    ],
)
def test_values_that_rouge_score_publishes(name: str, prediction: str, value: float) -> None:
    """F1 in https://github.com/google-research/google-research/blob/master/rouge/rouge_scorer_test.py."""
    assert REGISTRY[name]([prediction], [["testing one two"]]).value == pytest.approx(100 * value)


def test_rouge_by_hand() -> None:
    """Nine reference words, eight predicted; "the" counts twice in both.

    In common: the, the, quick, brown, dog, jumps; "the quick", "quick brown"; the quick brown jumps the.
    """
    texts = ["The quick brown dog jumps on the log."], [["The quick brown fox jumps over the lazy dog"]]
    assert rouge1(*texts).value == pytest.approx(100 * 2 * 6 / 17)
    assert rouge2(*texts).value == pytest.approx(100 * 2 * 2 / 15)
    assert rouge_l(*texts).value == pytest.approx(100 * 2 * 5 / 17)


def test_words_count_as_often_as_in_both() -> None:
    assert rouge1(["a a a"], [["a a b b"]]).value == pytest.approx(100 * 2 * 2 / 7)


def test_words_are_those_of_rouge_score() -> None:
    assert words("It's 3.5-mm, naïve_X\n") == ["it", "s", "3", "5", "mm", "na", "ve", "x"]
    assert words("№ …") == []


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL", "token_f1"])
def test_the_best_reference_counts_and_examples_are_averaged(name: str) -> None:
    """The first example is right by its second reference, the second one has nothing in common with its own."""
    ours = REGISTRY[name](["two words", "x y"], [["two three", "words two", "Two words!"], ["z w"]])
    assert ours.value == pytest.approx(50.0)
    assert (ours.low, ours.high) == (0.0, 100.0)


def test_two_texts_without_words_have_nothing_in_common() -> None:
    for metric in (rouge1, rouge2, rouge_l):
        assert metric([" ?"], [["!"]]).value == 0.0
    assert rouge2(["one"], [["one"]]).value == 0.0


def test_common_subsequences_against_the_table() -> None:
    def table(a: list[str], b: list[str]) -> int:
        rows = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                rows[i + 1][j + 1] = rows[i][j] + 1 if x == y else max(rows[i][j + 1], rows[i + 1][j])
        return rows[-1][-1]

    draw = random.Random(3)
    for _ in range(200):
        a, b = (draw.choices("abcde", k=draw.randint(0, 90)) for _ in range(2))
        assert common_subsequence(a, b) == common_subsequence(b, a) == table(a, b)


def test_token_f1_by_hand() -> None:
    """Without articles and punctuation: 'us president' and 'president of us' share two of two and three words."""
    assert token_f1(["The U.S. president"], [["a president of the US"]]).value == pytest.approx(100 * 4 / 5)
    assert token_f1(["cat cat dog"], [["cat cat cat mouse"]]).value == pytest.approx(100 * 4 / 7)
    assert token_f1(["An  ANSWER."], [["answer"]]).value == 100.0


def test_token_f1_of_texts_without_words() -> None:
    """As SQuAD 2 has it: two empty answers are equal, one alone is wrong."""
    predictions, references = ["the", "", "word"], [["?"], ["word"], ["an"]]
    assert token_f1(predictions, references).value == pytest.approx(100 / 3)


def test_answer_words_keep_what_is_no_article() -> None:
    assert answer_words("Another Theatre, an a-ha «the end»") == ["another", "theatre", "aha", "«", "end»"]


def test_accuracy_by_hand() -> None:
    assert accuracy(["yes", "no", " maybe\n", "No"], [["yes"], ["no", "nope"], ["maybe"], ["no"]]).value == 75.0
