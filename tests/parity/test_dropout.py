"""In training, what is dropped is what transformers drops: the same random numbers, in the same order."""

from typing import Any

import pytest
import torch

from graftlm.families.donor import load_causal_lm
from tiny import WHOLE, batch, gap

DROPOUTS: list[tuple[str, dict[str, float]]] = [
    ("phi3", {"resid_pdrop": 0.4}),
    ("gpt2", {"embd_pdrop": 0.3}),
    ("gpt2", {"resid_pdrop": 0.4}),
    ("gpt2", {"embd_pdrop": 0.3, "resid_pdrop": 0.4}),
    ("gpt_neox", {"hidden_dropout": 0.3}),
    ("gpt_neox", {"hidden_dropout": 0.3, "use_parallel_residual": False}),
]


@pytest.mark.parametrize(("family", "settings"), DROPOUTS, ids=str)
def test_states_are_dropped_where_transformers_drops_them(
    family: str, settings: dict[str, float], tiny_lm: Any
) -> None:
    stock, folder = tiny_lm(family, **settings)
    ours, b = load_causal_lm(folder), batch("right", lengths=(14, 14))
    plain = ours(b.ids).logits
    outputs = []
    for model in (ours, stock):
        model.train()
        torch.manual_seed(5)
        outputs.append(model(b.ids, labels=b.ids))
        outputs[-1].loss.backward()
        model.eval()
    mine, theirs = outputs
    assert gap(mine.logits, theirs.logits) <= WHOLE
    assert gap(mine.logits, plain) > 1000 * WHOLE
    table, other = ours.decoder.embedding.weight.grad, stock.get_input_embeddings().weight.grad
    assert table is not None
    assert gap(table, other) <= WHOLE
    stock.zero_grad()
