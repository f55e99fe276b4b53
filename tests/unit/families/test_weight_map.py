"""Every family's table of tensor names, in both directions."""

import pytest
import torch

from graftlm.families.registry import FAMILIES
from graftlm.families.stock_config import complete
from graftlm.model.causal_lm import CausalLM
from graftlm.model.pretrained import stored_shapes
from tiny import FAMILIES as TINY
from tiny import as_saved, stock_lm


@pytest.mark.parametrize("family", TINY)
def test_round_trip_of_all_names(family: str) -> None:
    stock = stock_lm(family, tie_word_embeddings=False)
    table = FAMILIES[family]
    raw = stock.config.to_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in as_saved(stock, stock.state_dict()).items()}
    config = table.config.read(raw, complete(raw))
    ours = {name: torch.zeros(shape) for name, shape in stored_shapes(CausalLM, config).items()}
    assert {name: tuple(t.shape) for name, t in table.stock_tensors(ours, config).items()} == shapes
    parts = {name: table.weights.to_ours(name).ours for name in shapes}
    assert sorted(part for names in parts.values() for part in names) == sorted(ours)
    assert {table.weights.to_source(part).source for names in parts.values() for part in names} == set(shapes)


@pytest.mark.parametrize("family", TINY)
def test_names_that_no_rule_speaks_of(family: str) -> None:
    weights = FAMILIES[family].weights
    for name in ("model.layers.x.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight.2", "wte.weight.0"):
        assert weights.to_ours(name) is None
        assert not weights.is_dropped(name)
    assert weights.to_source("encoder.layers.0.mlp.up_proj.weight") is None
    assert weights.dropped
    for pattern in weights.dropped:
        name = pattern.replace("{layer}", "17").replace("{base}", "")
        assert weights.is_dropped(name, "")
        assert not weights.is_dropped(f"{name}s", "")
