"""The config tables of T5Gemma and T5Gemma 2: nested on both sides, total, in both directions."""

import dataclasses
from typing import Any

import pytest

from graftlm.errors import ConversionError
from graftlm.families.registry import FAMILIES
from graftlm.families.stock_config import complete, spread
from graftlm.model.config import GraftConfig
from tiny_t5gemma import T5GEMMAS, t5gemma_config

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("t5gemma", {}),
    ("t5gemma", {"tie_word_embeddings": False, "eos_token_id": [2, 3], "attention_bias": True}),
    ("t5gemma", {"attn_logit_softcapping": None, "final_logit_softcapping": None, "rms_norm_eps": 1e-5}),
    ("t5gemma", {"encoder": {"vocab_size": 77, "head_dim": 16, "sliding_window": 9, "hidden_activation": "silu"}}),
    ("t5gemma2", {}),
    ("t5gemma2", {"sliding_window": 8, "rope_parameters": None, "eos_token_id": [2, 3], "pad_token_id": None}),
    ("t5gemma2", {"attention_bias": True, "final_logit_softcapping": None, "encoder": {"sliding_window": 9}}),
]


def our_config(raw: dict[str, Any]) -> GraftConfig:
    return FAMILIES[raw["model_type"]].config.read(raw, complete(raw))


@pytest.mark.parametrize("dropout", [{}, {"dropout_rate": 0.1, "attention_dropout": 0.2}], ids=str)
@pytest.mark.parametrize(("family", "overrides"), VARIANTS, ids=str)
def test_round_trip(family: str, overrides: dict[str, Any], dropout: dict[str, float]) -> None:
    """Every field that the table does not ignore comes back as it was, and ours is the same a second time."""
    raw = t5gemma_config(family, **overrides).to_dict() | dropout
    config, table = our_config(raw), FAMILIES[family].config
    written = FAMILIES[family].stock_config(config)
    again, expected = (spread(complete(values), table.nested) for values in (written, raw))
    flat = table.flat(config)
    fields = {name for rule in table.rules for name in rule.write(flat)} & expected.keys()
    fields -= {"encoder.vision_config"}
    assert {"tie_word_embeddings", "decoder.hidden_size", "decoder.sliding_window", "dropout_rate"} <= fields
    for name in fields:
        assert again[name] == expected[name], name
    assert our_config(written).to_dict() == config.to_dict()


@pytest.mark.parametrize("family", T5GEMMAS)
def test_every_field_of_transformers_is_spoken_of(family: str) -> None:
    config, table = t5gemma_config(family), FAMILIES[family].config
    fields = set(spread(config.to_dict(), table.nested)) | {f.name for f in dataclasses.fields(type(config))}
    unknown = {n for n in fields - table.known() - set(table.nested) if not n.rpartition(".")[2].startswith("_")}
    assert unknown == set()


def test_values_that_are_read() -> None:
    """Windows on either side, what joins the stacks, and rotary parameters by type of layer: spelled out by hand."""
    first, second = (our_config(t5gemma_config(family).to_dict()) for family in T5GEMMAS)
    assert (first.encoder.window, first.decoder.window) == ((5, 5), (4, 0))
    assert (second.encoder.window, second.decoder.window) == ((2, 2), (4, 0))
    even = our_config(t5gemma_config("t5gemma2", sliding_window=8).to_dict())
    assert (even.encoder.window, even.decoder.window) == ((3, 4), (7, 0))
    assert (first.cross_mode, first.share_embeddings) == ("separate", False)
    assert (second.cross_mode, second.share_embeddings) == ("merged", True)
    for config in (first, second):
        joined = (config.memory_norm, config.memory_rotary, config.memory_window, config.positions)
        assert joined == ("none", False, "none", "restarted")
        assert (config.encoder_attention, config.decoder_start, config.bridge.kind) == ("bidirectional", "bos", "last")
    assert (first.encoder.attention_softcap, second.encoder.attention_softcap) == (5.0, None)
    assert second.decoder.rotary["sliding_attention"]["rope_theta"] == 100.0
    assert second.decoder.rotary["full_attention"]["rope_type"] == "linear"


@pytest.mark.parametrize(
    ("family", "change", "messages"),
    [
        ("t5gemma", {"shiny": 1}, ["shiny (unknown field)"]),
        ("t5gemma", {"encoder": {"shiny": 1}}, ["encoder.shiny (unknown field)"]),
        ("t5gemma", {"decoder_start_token_id": 5}, ["decoder_start_token_id=5", "decoder.bos_token_id, 1"]),
        (
            "t5gemma2",
            {"tie_word_embeddings": False, "shiny": 1},
            ["shiny (unknown field)", "tie_word_embeddings=False"],
        ),
        ("t5gemma2", {"decoder": {"use_bidirectional_attention": True}}, ["use_bidirectional_attention=True"]),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named(family: str, change: dict[str, Any], messages: list[str]) -> None:
    raw = t5gemma_config(family).to_dict()
    for name, value in change.items():
        raw[name] = raw[name] | value if isinstance(value, dict) else value
    with pytest.raises(ConversionError) as error:
        our_config(raw)
    for message in messages:
        assert message in str(error.value)
    assert "\n" not in str(error.value)
