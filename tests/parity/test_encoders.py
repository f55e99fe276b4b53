"""Encoder-only families against transformers' own models: modules, states, gradients, configs and weights."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graftlm.errors import ConfigError
from graftlm.families.donor import load_donor, open_donor
from graftlm.families.registry import FAMILIES
from graftlm.model.block import Block, View
from graftlm.model.config import EncoderConfig
from graftlm.model.encoder_model import EncoderModel
from graftlm.model.position import positions_from_mask
from tiny import LENGTHS, MODULE, SIDES, WHOLE, Batch, gap, gradients
from tiny import batch as any_batch
from tiny_encoders import ENCODERS, POSITIONS, VOCABULARY, stock_encoder, stock_layers, stock_states


def ours_of(folder: Path) -> EncoderModel:
    model: EncoderModel = load_donor(open_donor(folder))
    return model


def batch(side: str) -> Batch:
    """Ids that are no family's padding token."""
    b = any_batch(side, vocabulary=VOCABULARY)
    return b._replace(ids=b.ids.where(b.ids != 3, 4))


def parts(stock: Any, block: Block, view: View) -> Iterator[tuple[Any, Callable[[Tensor], Tensor]]]:
    """Each module of a stock layer, with what is ours of the same input."""

    def attend(x: Tensor) -> Tensor:
        attention = block.attention
        return attention(attention.query(x, view.rotary), [attention.key_value(x, view.rotary)], view.mask)

    yield stock, lambda x: block(x, view)
    if hasattr(stock, "attn"):
        yield stock.attn_norm, block.attention_norm
        yield stock.attn, attend
        yield stock.mlp_norm, block.mlp_norm
        yield stock.mlp, block.mlp
    else:
        yield stock.attention, lambda x: block.attention_out_norm(x + attend(x))
        yield stock.intermediate, lambda x: block.mlp.activation(block.mlp.up_proj(x))


@pytest.mark.parametrize("family", ENCODERS)
@torch.no_grad()
def test_every_module_computes_what_transformers_does(family: str, tiny_encoder: Any) -> None:
    stock, folder = tiny_encoder(family)
    encoder = ours_of(folder).encoder
    ids = batch("right").row(0)[None]
    mask = torch.ones_like(ids)
    positions = positions_from_mask(mask)
    seen: dict[Any, tuple[Tensor, Tensor]] = {}

    def record(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        first = args[0] if args else next(iter(kwargs.values()))
        seen[module] = first, output[0] if isinstance(output, tuple) else output

    hooks = [module.register_forward_hook(record, with_kwargs=True) for module in stock.modules()]
    stock(ids)
    for hook in hooks:
        hook.remove()
    embedded = encoder.embedding(ids)
    assert gap(encoder.stem(embedded, positions), seen[stock.embeddings][1]) <= MODULE
    views = encoder.views(embedded, mask, positions)
    compared = 0
    for layer, block in zip(stock_layers(stock), encoder.layers, strict=True):
        for module, ours in parts(layer, block, views[block.layer_type]):
            x, expected = seen[module]
            assert gap(ours(x), expected) <= MODULE, type(module)
            compared += 1
    assert compared == 4 * (5 if family == "modernbert" else 3)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", ENCODERS)
def test_every_state_and_gradient(family: str, side: str, tiny_encoder: Any) -> None:
    """Ours with padding against stock row by row without: some of theirs count positions by slot."""
    stock, folder = tiny_encoder(family)
    ours, b = ours_of(folder), batch(side)
    weights = torch.randn(48, generator=torch.Generator().manual_seed(3))
    mine = ours(b.ids, attention_mask=b.mask)
    ((mine.last_hidden_state[b.mask.bool()] @ weights).sum() / sum(LENGTHS)).backward()
    stock.zero_grad()
    for i in range(len(LENGTHS)):
        theirs = stock_states(stock, b.row(i)[None])
        ((theirs[-1] @ weights).sum() / sum(LENGTHS)).backward()
        real = b.mask[i].bool()
        for found, expected in zip((*mine.hidden_states, mine.last_hidden_state), theirs, strict=True):
            assert gap(found[i][real], expected[0]) <= WHOLE
    found = FAMILIES[family].stock_tensors(gradients(ours), ours.config)
    expected = gradients(stock)
    assert found.keys() == expected.keys() == {n for n, _ in stock.named_parameters() if "pooler" not in n}
    for name, grad in expected.items():
        size = grad.abs().max().item()
        # A bias of keys moves all scores of a query alike; only rotary positions make its gradient more than noise.
        noise = name.endswith("key.bias")
        assert noise == (size < 1e-5), name
        assert gap(found[name], grad) <= (MODULE if noise else WHOLE * min(1.0, size)), name
    stock.zero_grad()


DROPOUTS = [
    (family, name)
    for family in ENCODERS
    for name in (
        ("embedding_dropout", "attention_dropout", "mlp_dropout")
        if family == "modernbert"
        else ("hidden_dropout_prob", "attention_probs_dropout_prob")
    )
]


@pytest.mark.parametrize(("family", "name"), DROPOUTS)
@torch.no_grad()
def test_dropouts_fall_where_theirs_do(family: str, name: str, tiny_encoder: Any) -> None:
    """With the same random numbers, in the same order, both lose the same."""
    none = {other: 0.0 for of, other in DROPOUTS if of == family}
    stock, folder = tiny_encoder(family, **(none | {name: 0.4}))
    ours, ids = ours_of(folder), batch("right").row(0)[None]
    kept = ours(ids).last_hidden_state
    stock.train()
    ours.train()
    states = []
    for model in (stock, ours):
        torch.manual_seed(5)
        states.append(model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state)
    stock.eval()
    assert gap(states[0], states[1]) <= WHOLE
    assert gap(states[1], kept) > 1000 * WHOLE


SWITCHES: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"activation": "relu"}),
    ("bert", {"embedding_norm": False}),
    ("bert", {"norm_eps": 1.0}),
    ("bert", {"norm_placement": "output"}),
    ("bert", {"token_types": 0}),
    ("roberta", {"absolute_positions": None}),
    ("roberta", {"position_offset": 0, "max_position_embeddings": POSITIONS + 2}),
    ("xlm-roberta", {"position_offset": 0, "max_position_embeddings": POSITIONS + 4}),
    ("modernbert", {"embedding_norm": False}),
    ("modernbert", {"final_norm": False}),
    ("modernbert", {"first_attention_norm": True}),
    ("modernbert", {"rotary": {kind: {"rope_theta": 10_000.0} for kind in ("full_attention", "sliding_attention")}}),
    ("modernbert", {"window": (2, 3)}),
    ("modernbert", {"window": (3, 2)}),
    ("modernbert", {"window": (4, 4)}),
]


@pytest.mark.parametrize(("family", "switch"), SWITCHES, ids=str)
@torch.no_grad()
def test_every_mechanism_changes_the_states(family: str, switch: dict[str, Any], tiny_encoder: Any) -> None:
    """Without this, parity could hold with a mechanism that does nothing."""
    ours, b = ours_of(tiny_encoder(family)[1]), batch("right")
    other = EncoderModel(EncoderConfig(encoder=dataclasses.replace(ours.config.encoder, **switch))).eval()
    other.load_state_dict(ours.state_dict(), strict=False)
    first, second = (model(b.ids, attention_mask=b.mask).last_hidden_state[b.mask.bool()] for model in (ours, other))
    assert gap(first, second) > 1000 * WHOLE


ROPE: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {
        "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
        "long_factor": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "original_max_position_embeddings": 16,
    },
    "llama3": {
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


@pytest.mark.parametrize("length", [12, 30])
@pytest.mark.parametrize("kind", ROPE)
@torch.no_grad()
def test_rope_scalings_of_one_type_of_layer(kind: str, length: int, tiny_encoder: Any) -> None:
    """Below and beyond the length that `dynamic` and `longrope` change their frequencies at."""
    scaled = ROPE[kind] | {"rope_type": kind, "rope_theta": 1000.0}
    plain = {"rope_type": "default", "rope_theta": 100.0}
    settings = {
        "rope_parameters": {"full_attention": scaled, "sliding_attention": plain},
        "max_position_embeddings": 16 if kind == "dynamic" else 64,
    }
    # A new model: transformers' keeps the frequencies of the longest sequence that it has seen.
    stock, ours = stock_encoder("modernbert", **settings), ours_of(tiny_encoder("modernbert", **settings)[1])
    ids = any_batch("right", vocabulary=VOCABULARY, lengths=(length,)).ids
    found, expected = ours(ids).last_hidden_state, stock(ids).last_hidden_state
    assert gap(found, expected) <= WHOLE
    if not (kind == "dynamic" and length < 16):
        scaled = {"full_attention": {"rope_type": "default", "rope_theta": 1000.0}, "sliding_attention": plain}
        usual = stock_encoder("modernbert", **(settings | {"rope_parameters": scaled}))
        assert gap(usual(ids).last_hidden_state, expected) > 1000 * WHOLE


@pytest.mark.parametrize("family", [family for family in ENCODERS if family != "modernbert"])
def test_texts_beyond_the_learned_positions(family: str, tiny_encoder: Any) -> None:
    ours = ours_of(tiny_encoder(family)[1])
    ids = torch.full((1, POSITIONS + 3), 7)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    assert ours(ids, attention_mask=mask).last_hidden_state.isfinite().all()
    mask[0, 2] = 1
    with pytest.raises(ConfigError, match=f"has {POSITIONS + 1} tokens, but this model has only learned {POSITIONS} p"):
        ours(ids, attention_mask=mask)
