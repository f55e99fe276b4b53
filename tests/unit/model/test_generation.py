"""`generate` against plain loops without any cache, for both cross modes with both decoder starts."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from graftlm.errors import ConfigError
from graftlm.model.modeling import GraftForConditionalGeneration
from tiny import BOS, EOS, GRAFTS, PAD, Batch, batch, gap, graft
from tiny import tokenizer as tiny_tokenizer

NEW = 10


@pytest.fixture(params=GRAFTS)
def model(request: pytest.FixtureRequest) -> GraftForConditionalGeneration:
    made = graft(**GRAFTS[request.param])
    # Random models hardly ever end a sequence; this one does within a few tokens.
    with torch.no_grad():
        made.lm_head.weight[EOS].mul_(2.5)
    return made


@pytest.fixture(params=["left", "both"])
def sources(request: pytest.FixtureRequest) -> Batch:
    return batch(request.param, vocabulary=40, lengths=(14, 9, 1, 5, 11, 7))


def start_of(model: GraftForConditionalGeneration, source: Tensor) -> list[int]:
    return [int(source[-1])] if model.starts_with_source else [BOS]


@torch.no_grad()
def log_probs(model: GraftForConditionalGeneration, source: Tensor, prefixes: list[list[int]]) -> Tensor:
    """Of the next token after each prefix, for one source (n,) without padding; (prefixes, V)."""
    sources = source.expand(len(prefixes), -1)
    logits = model(input_ids=sources, decoder_input_ids=torch.tensor(prefixes), use_cache=False).logits
    return logits[:, -1].log_softmax(-1)


def greedy(model: GraftForConditionalGeneration, source: Tensor) -> list[int]:
    """Reference: the likeliest token, again and again; the source alone, no cache."""
    tokens = start_of(model, source)
    for _ in range(NEW):
        tokens.append(int(log_probs(model, source, [tokens]).argmax()))
        if tokens[-1] == EOS:
            break
    return tokens[1:]


def beam(model: GraftForConditionalGeneration, source: Tensor, beams: int, penalty: float) -> list[int]:
    """Reference: beam search with every prefix run in full. A finished sequence of n tokens has log p / n^penalty.

    Of the 2·beams best continuations, those among the first `beams` that end are finished; the best `beams` of the
    others live on. What is alive after the last step counts as finished.
    """
    start = start_of(model, source)
    alive, finished = [(0.0, start)], []
    for step in range(1, NEW + 1):
        scores = log_probs(model, source, [tokens for _, tokens in alive])
        grown = [
            (total + score, [*tokens, token])
            for (total, tokens), row in zip(alive, scores.tolist(), strict=True)
            for token, score in enumerate(row)
        ]
        best = sorted(grown, key=lambda item: -item[0])[: 2 * beams]
        ended = [item for item in best[:beams] if item[1][-1] == EOS or step == NEW]
        finished += [(total / step**penalty, tokens) for total, tokens in ended]
        alive = [item for item in best if item[1][-1] != EOS][:beams]
    return max(finished)[1][1:]


def unpadded(rows: Tensor, model: GraftForConditionalGeneration) -> Iterator[list[int]]:
    """Generated rows without the start token and without what follows EOS."""
    for row in rows[:, 0 if model.starts_with_source else 1 :].tolist():
        yield row[: row.index(EOS) + 1] if EOS in row else row


def generate(model: GraftForConditionalGeneration, b: Batch, **settings: Any) -> Tensor:
    return model.generate(input_ids=b.ids, attention_mask=b.mask, max_new_tokens=NEW, **settings)


def test_greedy_equals_the_plain_loop(model: GraftForConditionalGeneration, sources: Batch) -> None:
    expected = [greedy(model, sources.row(i)) for i in range(len(sources.ids))]
    found = generate(model, sources, do_sample=False)
    assert list(unpadded(found, model)) == expected
    assert len({len(row) for row in expected}) > 1, "rows that end at different steps are what this test is for"
    alone = generate(model, Batch(sources.ids[1:2], sources.mask[1:2], sources.target[1:2]), do_sample=False)
    assert list(unpadded(alone, model)) == expected[1:2]


@pytest.mark.parametrize("penalty", [0.5, 1.0, 2.0])
def test_beam_search_equals_the_plain_loop(
    model: GraftForConditionalGeneration, sources: Batch, penalty: float
) -> None:
    expected = [beam(model, sources.row(i), 3, penalty) for i in range(len(sources.ids))]
    found = generate(model, sources, do_sample=False, num_beams=3, length_penalty=penalty, early_stopping="never")
    assert list(unpadded(found, model)) == expected


def test_beam_search_is_not_greedy(sources: Batch) -> None:
    model = graft(**GRAFTS["merged-source"])
    found = [list(unpadded(generate(model, sources, do_sample=False, num_beams=n), model)) for n in (1, 3)]
    assert found[0] != found[1]


@pytest.mark.parametrize("beams", [1, 3])
def test_the_cache_changes_nothing(model: GraftForConditionalGeneration, sources: Batch, beams: int) -> None:
    settings = {"do_sample": False, "num_beams": beams}
    with_cache, without = (generate(model, sources, use_cache=use, **settings) for use in (True, False))
    assert with_cache.tolist() == without.tolist()


@torch.no_grad()
def test_logits_step_by_step(model: GraftForConditionalGeneration, sources: Batch) -> None:
    """Cached steps of different lengths compute what one pass over the whole target does."""
    encoded = model.encode(sources.ids, sources.mask)
    inputs = model.shift_right(sources.target, encoded)
    whole = model(input_ids=sources.ids, attention_mask=sources.mask, labels=sources.target).logits
    past, logits = None, []
    for piece in inputs.split((4, 1, 3, 1), dim=1):
        output = model(
            encoder_outputs=encoded,
            attention_mask=sources.mask,
            decoder_input_ids=piece,
            past_key_values=past,
            use_cache=True,
        )
        past = output.past_key_values
        logits.append(output.logits)
    assert gap(torch.cat(logits, dim=1), whole) <= 1e-5


def test_encoder_outputs_may_be_given(model: GraftForConditionalGeneration, sources: Batch) -> None:
    encoded = model.encode(sources.ids, sources.mask)
    settings = {"attention_mask": sources.mask, "max_new_tokens": NEW, "do_sample": False}
    found = model.generate(encoder_outputs=encoded, **settings)
    assert found.tolist() == model.generate(input_ids=sources.ids, **settings).tolist()


def test_sampling_is_reproducible(model: GraftForConditionalGeneration, sources: Batch) -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(generate(model, sources, do_sample=True, top_k=0).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_decoder_prompt(model: GraftForConditionalGeneration, sources: Batch) -> None:
    """A target that is already begun is continued as if the model had begun it so itself."""
    likely = generate(model, sources, do_sample=False, eos_token_id=None)
    begun = likely[:, : 3 if model.starts_with_source else 4]
    start = torch.tensor([start_of(model, sources.row(i)) for i in range(len(sources.ids))])
    prompt = torch.cat((start, begun), dim=1) if model.starts_with_source else begun
    settings = {"do_sample": False, "eos_token_id": None, "decoder_input_ids": prompt}
    found = model.generate(input_ids=sources.ids, attention_mask=sources.mask, max_new_tokens=NEW - 3, **settings)
    assert found.tolist() == likely.tolist()


def test_a_prompt_that_does_not_continue_the_source_is_refused() -> None:
    model, b = graft(), batch("left", vocabulary=40)
    wrong = (b.ids[:, -1:] + 1) % 40
    with pytest.raises(ConfigError, match="must begin with the last source token"):
        model.generate(input_ids=b.ids, attention_mask=b.mask, decoder_input_ids=wrong, max_new_tokens=2)


def test_the_dictionary_form_drops_the_source_token_too() -> None:
    model, b = graft(), batch("left", vocabulary=40)
    plain = generate(model, b, do_sample=False)
    full = generate(model, b, do_sample=False, return_dict_in_generate=True, output_scores=True)
    assert full.sequences.tolist() == plain.tolist()
    assert len(full.scores) == plain.shape[1]
    assert PAD not in plain[0]


def test_a_static_cache_is_refused() -> None:
    with pytest.raises(ConfigError, match="cache_implementation 'static'"):
        graft().generate(torch.tensor([[1, 5, 6]]), max_new_tokens=2, cache_implementation="static")


def test_stop_strings_end_a_target() -> None:
    tokenizer, source = tiny_tokenizer(), torch.tensor([[1, 5, 6]])
    whole = graft().generate(source, max_new_tokens=6, do_sample=False, eos_token_id=None)
    word = tokenizer.decode(whole[0, 2])
    cut = graft().generate(
        source, max_new_tokens=6, do_sample=False, eos_token_id=None, stop_strings=[word], tokenizer=tokenizer
    )
    assert word in tokenizer.decode(cut[0])
    assert cut.shape[1] <= 3


def test_without_a_mask_everything_counts() -> None:
    """The decoder's padding id may be a word of the source's vocabulary."""
    model = graft(**GRAFTS["separate-bos"])
    ids = torch.tensor([[5, PAD, 6], [PAD, 7, 8]])
    settings: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": PAD, "eos_token_id": EOS}
    found = model.generate(ids, **settings)
    assert torch.equal(found, model.generate(ids, attention_mask=torch.ones_like(ids), **settings))
    assert not torch.equal(found, model.generate(ids, attention_mask=ids.ne(PAD).long(), **settings))
