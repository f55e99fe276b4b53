"""Recipe t5gemma against transformers' T5Gemma: the same weights by name, and the same logits."""

import re
from typing import Any

import pytest
import torch
from transformers import T5GemmaConfig, T5GemmaForConditionalGeneration

from graftlm.adaptation.adapt import adapt
from graftlm.families.t5gemma import T5GEMMA
from graftlm.model.modeling import GraftForConditionalGeneration
from tiny import BOS, PAD, SIDES, VOCABULARY, WHOLE, batch, gap

SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_key_value_heads": 1, "sliding_window": 7}


def as_t5gemma(model: GraftForConditionalGeneration) -> T5GemmaForConditionalGeneration:
    """The graft in transformers' own class."""
    values = T5GEMMA.stock_config(model.config)
    stock = T5GemmaForConditionalGeneration._from_config(
        T5GemmaConfig.from_dict(values), attn_implementation="eager"
    ).eval()
    stock.load_state_dict(T5GEMMA.stock_tensors(model.state_dict(), model.config), strict=True)
    return stock


@pytest.fixture(scope="module", params=["balanced", "unbalanced"])
def pair(request: pytest.FixtureRequest, tiny_lm: Any) -> tuple[Any, Any]:
    """(graft, the same in transformers), of one Gemma 2 or of two of different widths."""
    _, folder = tiny_lm("gemma2")
    if request.param == "balanced":
        model = adapt(folder, recipe="t5gemma")
        return model, as_t5gemma(model)
    _, other = tiny_lm("gemma2", seed=1, **SMALL)
    model = adapt(folder, encoder_from=other, recipe="t5gemma")
    with torch.no_grad():  # Fresh cross-attention is too small to be seen by a test of logits.
        for name, parameter in model.named_parameters():
            if re.search(r"\.cross_attention\.", name):
                parameter.mul_(0.25 / 0.02)
    return model, as_t5gemma(model)


@pytest.mark.parametrize("side", SIDES)
@torch.no_grad()
def test_logits(pair: tuple[Any, Any], side: str) -> None:
    model, stock = pair
    b = batch(side, lengths=(19, 9, 1, 5), target=13)
    mask = torch.ones_like(b.target)
    mask[1, 8:] = mask[2, :3] = 0
    given = {"input_ids": b.ids, "attention_mask": b.mask, "decoder_input_ids": b.target}
    found, expected = (m(**given, decoder_attention_mask=mask).logits for m in (model, stock))
    assert gap(found[mask.bool()], expected[mask.bool()]) <= WHOLE


@torch.no_grad()
def test_the_memory_matters(pair: tuple[Any, Any]) -> None:
    model, _ = pair
    b = batch("right")
    target = b.target[:1].expand(len(b.ids), -1)
    logits = model(input_ids=b.ids, attention_mask=b.mask, decoder_input_ids=target).logits
    assert gap(logits[:1].expand(3, -1, -1), logits[1:]) > 1000 * WHOLE


@torch.no_grad()
def test_labels_and_generation(pair: tuple[Any, Any]) -> None:
    model, stock = pair
    b = batch("both")
    labels = b.target.clone()
    labels[1, 5:] = -100
    found, expected = (m(input_ids=b.ids, attention_mask=b.mask, labels=labels) for m in (model, stock))
    counted = labels != -100
    assert gap(found.logits[counted], expected.logits[counted]) <= WHOLE
    assert abs(found.loss.item() - expected.loss.item()) <= WHOLE
    for settings in ({}, {"num_beams": 3}):
        given = {"max_new_tokens": 10, "decoder_start_token_id": BOS, "pad_token_id": PAD, "do_sample": False}
        tokens = [m.generate(b.ids, attention_mask=b.mask, **given, **settings).tolist() for m in (model, stock)]
        assert tokens[0] == tokens[1]


def test_balanced_cross_attention_is_copied(tiny_lm: Any) -> None:
    _, folder = tiny_lm("gemma2")
    state = adapt(folder, recipe="t5gemma").state_dict()
    crosses = [name for name in state if ".cross_attention" in name]
    assert len(crosses) == 4 * (4 + 2)
    for name in crosses:
        assert torch.equal(state[name], state[name.replace(".cross_attention", ".attention")]), name


def test_unbalanced_cross_attention_is_fresh_and_seeded(tiny_lm: Any) -> None:
    _, folder = tiny_lm("gemma2")
    _, other = tiny_lm("gemma2", seed=1, **SMALL)
    first, again, third = (
        adapt(folder, encoder_from=other, recipe="t5gemma", seed=seed).state_dict() for seed in (3, 3, 4)
    )
    for name in first:
        fresh = ".cross_attention." in name
        assert torch.equal(first[name], again[name])
        assert torch.equal(first[name], third[name]) != fresh, name
        if fresh:
            assert 0.01 < first[name].std() < 0.03
        if "cross_attention_norm" in name or "cross_attention_out_norm" in name:
            assert first[name].abs().max() == 0
    assert first["decoder.layers.0.cross_attention.k_proj.weight"].shape == (16, 48)
    assert first["encoder.embedding.weight"].shape == (VOCABULARY, 48)


@torch.no_grad()
def test_both_windows_matter(tiny_lm: Any) -> None:
    """Of models with the same weights, wide windows give other encoder states and, from one memory, other logits."""
    b = batch("right", lengths=(19, 9), target=13)
    narrow, wide = (adapt(tiny_lm("gemma2", **w)[1], recipe="t5gemma") for w in ({}, {"sliding_window": 128}))
    first, second = (model.encode(b.ids, b.mask) for model in (narrow, wide))
    assert gap(first.memory, second.memory) > 1000 * WHOLE
    given = {"encoder_outputs": first, "attention_mask": b.mask, "decoder_input_ids": b.target}
    assert gap(narrow(**given).logits, wide(**given).logits) > 1000 * WHOLE
