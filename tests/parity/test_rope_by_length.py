"""Frequencies that depend on the length: exact below the threshold, beyond it as stock's cached decoding."""

from typing import Any

import pytest
import torch

from graftlm.adaptation.adapt import adapt
from graftlm.generation.kv_prefix import kv_prefix, left_padded
from tiny import PAD, ROTARY, WHOLE, batch, gap, rope_settings, stock_lm

KINDS = ("dynamic", "longrope")
SETTINGS = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": PAD}


@pytest.mark.parametrize("length", [10, 24], ids=["crossing", "beyond"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ROTARY)
def test_generation(family: str, kind: str, length: int, tiny_lm: Any) -> None:
    model, b = adapt(tiny_lm(family, **rope_settings(family, kind))[1]), batch("both", lengths=(length, 5))
    ids, mask = left_padded(b.ids, b.mask)

    def stock_tokens(**cache: Any) -> list[list[int]]:
        # A new model each time: transformers' keeps the frequencies of the longest sequence that it has seen.
        stock = stock_lm(family, **rope_settings(family, kind))
        return stock.generate(input_ids=ids, attention_mask=mask, **SETTINGS, **cache)[:, length:].tolist()

    expected = stock_tokens()
    assert model.generate(input_ids=b.ids, attention_mask=b.mask, **SETTINGS).tolist() == expected
    assert stock_tokens(past_key_values=kv_prefix(model, b.ids, b.mask)) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ROTARY)
@torch.no_grad()
def test_logits_below_the_threshold(family: str, kind: str, tiny_lm: Any) -> None:
    stock = stock_lm(family, **rope_settings(family, kind))
    b = batch("left", lengths=(8,), target=7)
    found = adapt(tiny_lm(family, **rope_settings(family, kind))[1])(input_ids=b.ids, labels=b.target).logits
    assert gap(found, stock(torch.cat((b.ids, b.target[:, :-1]), dim=1)).logits[:, 7:]) <= WHOLE
