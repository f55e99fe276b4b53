"""Frequencies that depend on the length: exact below the threshold, beyond it as stock's cached decoding."""

from typing import Any

import pytest
import torch

from graftlm.adaptation.adapt import adapt
from graftlm.generation.kv_prefix import kv_prefix, left_padded
from tiny import PAD, WHOLE, batch, gap, stock_lm

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 16,
}
KINDS: dict[str, dict[str, Any]] = {
    "dynamic": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
        "max_position_embeddings": 16,
    },
    "longrope": {"rope_parameters": LONGROPE, "max_position_embeddings": 64},
}
SETTINGS = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": PAD}


@pytest.mark.parametrize("length", [10, 24], ids=["crossing", "beyond"])
@pytest.mark.parametrize("kind", KINDS)
def test_generation(kind: str, length: int, tiny_lm: Any) -> None:
    model, b = adapt(tiny_lm("llama", **KINDS[kind])[1]), batch("both", lengths=(length, 5))
    ids, mask = left_padded(b.ids, b.mask)

    def stock_tokens(**cache: Any) -> list[list[int]]:
        # A new model each time: transformers' keeps the frequencies of the longest sequence that it has seen.
        stock = stock_lm("llama", **KINDS[kind])
        return stock.generate(input_ids=ids, attention_mask=mask, **SETTINGS, **cache)[:, length:].tolist()

    expected = stock_tokens()
    assert model.generate(input_ids=b.ids, attention_mask=b.mask, **SETTINGS).tolist() == expected
    assert stock_tokens(past_key_values=kv_prefix(model, b.ids, b.mask)) == expected


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_logits_below_the_threshold(kind: str, tiny_lm: Any) -> None:
    stock = stock_lm("llama", **KINDS[kind])
    b = batch("left", lengths=(8,), target=7)
    found = adapt(tiny_lm("llama", **KINDS[kind])[1])(input_ids=b.ids, labels=b.target).logits
    assert gap(found, stock(torch.cat((b.ids, b.target[:, :-1]), dim=1)).logits[:, 7:]) <= WHOLE
