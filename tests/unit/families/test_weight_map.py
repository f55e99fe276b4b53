"""Every family's table of tensor names, in both directions."""

import pytest

from graftlm.families.donor import complete
from graftlm.families.registry import FAMILIES
from graftlm.model.causal_lm import CausalLM
from graftlm.model.pretrained import stored_shapes
from tiny import FAMILIES as TINY
from tiny import stock_lm


@pytest.mark.parametrize("family", TINY)
def test_round_trip_of_all_names(family: str) -> None:
    stock = stock_lm(family, tie_word_embeddings=False)
    table = FAMILIES[family]
    raw = stock.config.to_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in stock.state_dict().items()}
    ours = {table.weights.to_ours(name): shape for name, shape in shapes.items()}
    assert ours == stored_shapes(CausalLM, table.config.read(raw, complete(raw)))
    assert [table.weights.to_source(table.weights.to_ours(name)) for name in shapes] == list(shapes)


@pytest.mark.parametrize("family", TINY)
def test_names_that_no_rule_speaks_of(family: str) -> None:
    weights = FAMILIES[family].weights
    for name in ("model.layers.x.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight.2", "transformer.wte.weight"):
        assert weights.to_ours(name) is None
        assert not weights.is_dropped(name)
    assert weights.to_source("encoder.layers.0.mlp.up_proj.weight") is None
    assert weights.is_dropped("model.layers.17.self_attn.rotary_emb.inv_freq")
    assert not weights.is_dropped("model.layers.17.self_attn.q_proj.weight")
