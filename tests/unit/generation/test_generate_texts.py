"""Texts in, texts out: the same whatever else is in the batch."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import tiny
from graftlm.errors import ConfigError, TaskError
from graftlm.generation.sampling import GumbelNoise
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration

SOURCES = ["the fox", "the quick brown fox jumps over the lazy dog", "a", "lazy dogs sleep", "x" * 30]
STARTS = {"source": tiny.LOSSLESS, "bos": tiny.PLAIN | {"cross_mode": "separate"}}


@pytest.fixture(params=STARTS)
def model(request: pytest.FixtureRequest) -> GraftForConditionalGeneration:
    """Grafts that start with the last source token, and with BOS."""
    settings = STARTS[request.param]
    layers = {"encoder": settings["encoder"], "decoder": settings["decoder"]}
    wide = {
        side: tiny.stack(vocab_size=tiny.VOCABULARY, num_layers=stack.num_layers, final_norm=stack.final_norm)
        for side, stack in layers.items()
    }
    return tiny.graft(**settings | wide)


def greedy_by_hand(model: GraftForConditionalGeneration, ids: list[int], steps: int) -> list[int]:
    """Largest logits one by one, without cache, padding or batch."""
    source, written = torch.tensor([ids]), []
    with torch.no_grad():
        for _ in range(steps):
            labels = torch.tensor([[*written, tiny.EOS]])
            written.append(int(model(input_ids=source, labels=labels).logits[0, -1].argmax()))
            if written[-1] == tiny.EOS:
                break
    return written


def test_greedy_texts_are_the_largest_logits(
    model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = generate_texts(model, tiny_tokenizer, SOURCES, max_new_tokens=8)
    for source, text in zip(SOURCES, texts, strict=True):
        by_hand = greedy_by_hand(model, tiny_tokenizer(source)["input_ids"], 8)
        assert text == tiny_tokenizer.decode(by_hand, skip_special_tokens=True)


@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "seed": 3}], ids=str
)
def test_batches_do_not_change_texts(
    model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast, settings: dict[str, Any]
) -> None:
    alone, pairs, together = (
        generate_texts(model, tiny_tokenizer, SOURCES, max_new_tokens=8, batch_size=size, **settings)
        for size in (1, 2, 5)
    )
    assert alone == pairs == together
    assert len(set(alone)) > 1


def test_generation_stops_at_eos_and_hides_it(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Rows that end early are filled up beside the others, and nothing of that is in their texts."""
    texts = generate_texts(tiny_model, tiny_tokenizer, SOURCES, max_new_tokens=12)
    ids = [greedy_by_hand(tiny_model, tiny_tokenizer(source)["input_ids"], 12) for source in SOURCES]
    first = ids[0][2]
    stop = tiny_tokenizer.convert_ids_to_tokens(first)
    backend = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    early = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token=stop, pad_token="<pad>")
    stopped = generate_texts(tiny_model, early, SOURCES, max_new_tokens=12)
    cut = [row[: row.index(first)] if first in row else row for row in ids]
    assert stopped == [early.decode(row, skip_special_tokens=True) for row in cut]
    assert len(stopped[0]) < len(texts[0])


def test_sampling_follows_the_seed_and_the_row(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    def sample(seed: int) -> list[str]:
        same = ["the fox"] * 3
        return generate_texts(tiny_model, tiny_tokenizer, same, max_new_tokens=8, do_sample=True, seed=seed)

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert len(set(sample(1))) == 3


def test_gumbel_noise_draws_from_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0])
    draws = 4000
    drawn = GumbelNoise(range(draws))(torch.empty(draws, 0), logits.expand(draws, -1)).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / draws
    # Three standard deviations of a share are at most 0.024.
    torch.testing.assert_close(shares, logits.softmax(-1), atol=0.024, rtol=0)


def test_settings_that_came_with_the_model_are_not_used(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = generate_texts(tiny_model, tiny_tokenizer, SOURCES, max_new_tokens=8)
    tiny_model.generation_config.update(repetition_penalty=9.0, no_repeat_ngram_size=1, do_sample=True, num_beams=2)
    assert generate_texts(tiny_model, tiny_tokenizer, SOURCES, max_new_tokens=8) == expected


def test_training_mode_is_kept(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    tiny_model.train()
    generate_texts(tiny_model, tiny_tokenizer, ["a"], max_new_tokens=2)
    assert tiny_model.training
    loss = tiny_model(input_ids=torch.tensor([[1, 5]]), labels=torch.tensor([[6]])).loss
    loss.backward()


def test_progress_and_empty_input(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    calls: list[tuple[int, int]] = []
    generate_texts(
        tiny_model, tiny_tokenizer, SOURCES, max_new_tokens=2, batch_size=2, progress=lambda *c: calls.append(c)
    )
    assert calls == [(2, 5), (4, 5), (5, 5)]
    assert generate_texts(tiny_model, tiny_tokenizer, [], max_new_tokens=2) == []


def test_limit_and_truncation(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(TaskError, match=r"Source 2 has \d+ tokens and the limit is 4"):
        generate_texts(tiny_model, tiny_tokenizer, ["a", "x" * 9], max_new_tokens=4, source_limit=4)
    cut, whole = (
        generate_texts(tiny_model, tiny_tokenizer, [text], max_new_tokens=4, source_limit=4, truncate=True)
        for text in ("xyzabc", "xyz")
    )
    assert cut == whole


def test_settings_that_cannot_work(
    tiny_model: GraftForConditionalGeneration, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(TaskError, match="Source 2 is empty"):
        generate_texts(tiny_model, tiny_tokenizer, ["a", " "], max_new_tokens=2)
    for settings, problem in [
        ({"num_beams": 2}, "do not go together"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            generate_texts(tiny_model, tiny_tokenizer, ["a"], max_new_tokens=2, do_sample=True, **settings)
