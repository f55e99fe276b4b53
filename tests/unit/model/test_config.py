"""Configs say everything, refuse what they do not know, and refuse what contradicts itself."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from graftlm.errors import ConfigError
from graftlm.model.config import BridgeConfig, CausalLMConfig, GraftConfig, StackConfig
from tiny import GRAFTS, LOSSLESS, stack

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"cross_mode": "both"}, "cross_mode is 'both'"),
    ({"encoder_attention": "left"}, "encoder_attention is 'left'"),
    ({"memory_norm": "final"}, "memory_norm is 'final'"),
    ({"memory_window": "half"}, "memory_window is 'half'"),
    ({"positions": "absolute"}, "positions is 'absolute'"),
    ({"decoder_start": "eos"}, "decoder_start is 'eos'"),
    ({"cross_mode": "separate", "memory_window": "none"}, "separate reads the memory as it is"),
    ({"cross_mode": "separate", "memory_norm": "none"}, "separate reads the memory as it is"),
    ({"encoder": stack(num_layers=2, final_norm=False, vocab_size=41)}, "share_embeddings needs one vocabulary"),
    (
        {
            "encoder": stack(hidden_size=16),
            "bridge": BridgeConfig(),
            "cross_mode": "separate",
            "memory_norm": "none",
            "memory_window": "none",
        },
        "share_embeddings needs one vocabulary, width and scale",
    ),
    ({"encoder": stack(num_layers=3, final_norm=False)}, "aligned needs an encoder of 2 layers .* not 3"),
    ({"encoder": stack(num_layers=2)}, "aligned reads raw states"),
    ({"positions": "restarted", "decoder_start": "bos"}, "memory_window by_position"),
    ({"positions": "restarted", "memory_window": "none"}, "decoder_start last_source_token"),
    ({"source_eos": True}, "decoder_start last_source_token continues the source: set source_eos to false"),
    ({"source_tokenizer": True}, "share_embeddings needs one tokenizer"),
]
STACKS: list[tuple[dict[str, Any], str]] = [
    ({"norm_placement": "middle"}, "norm_placement is 'middle'"),
    ({"norm_placement": "post", "parallel_residual": True}, "parallel_residual needs"),
    ({"norm_kind": "layer", "norm_unit_offset": True}, "norm_unit_offset belongs to"),
    ({"num_heads": 0}, "num_heads is 0"),
    ({"hidden_size": 32.5}, "hidden_size is 32.5; it must be a whole number"),
    ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
    ({"norm_eps": float("nan")}, "norm_eps is nan; it must be a finite number"),
    ({"qk_norm": 1}, "qk_norm is 1; it must be true or false"),
    ({"layer_types": ("full_attention", "linear_attention", "full_attention")}, "layer_types is 'linear_attention'"),
    ({"layer_types": ("full_attention",)}, "layer_types has 1 entries for 3 layers"),
    ({"num_kv_heads": 3}, "num_heads 4 must be a multiple of num_kv_heads 3"),
    ({"window": None}, "window is not set"),
]


@pytest.mark.parametrize(("settings", "message"), CONTRADICTIONS, ids=[m for _, m in CONTRADICTIONS])
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    GraftConfig(**LOSSLESS)
    with pytest.raises(ConfigError, match=message):
        GraftConfig(**(LOSSLESS | settings))


@pytest.mark.parametrize(("settings", "message"), STACKS, ids=[m for _, m in STACKS])
def test_impossible_stacks_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stack(**settings)


def test_unknown_fields_are_refused_with_a_suggestion() -> None:
    values = stack().to_dict()
    with pytest.raises(ConfigError, match="StackConfig has no field 'num_layer'; did you mean 'num_layers'"):
        StackConfig.from_dict(values | {"num_layer": 3})
    with pytest.raises(ConfigError, match="BridgeConfig has no field 'kin'; did you mean 'kind'"):
        BridgeConfig.from_dict({"kin": "last"})
    with pytest.raises(ConfigError, match="GraftConfig has no field 'cross_modes'; did you mean 'cross_mode'"):
        GraftConfig(**LOSSLESS, cross_modes="merged")
    with pytest.raises(ConfigError, match="CausalLMConfig has no field 'encoder'"):
        CausalLMConfig(decoder=stack(), encoder=stack())
    with pytest.raises(ConfigError, match=r"StackConfig is incomplete: .*'vocab_size'"):
        StackConfig.from_dict({name: value for name, value in values.items() if name != "vocab_size"})


@pytest.mark.parametrize("name", GRAFTS)
def test_round_trip_through_json(name: str, tmp_path: Path) -> None:
    config = GraftConfig(**GRAFTS[name], recipe="lossless", pad_token_id=0, eos_token_id=[2, 3])
    config.save_pretrained(tmp_path)
    loaded = GraftConfig.from_pretrained(tmp_path)
    for field in dataclasses.fields(GraftConfig):
        if field.name != "transformers_version":
            assert getattr(loaded, field.name) == getattr(config, field.name), field.name
    assert json.loads((tmp_path / "config.json").read_text())["decoder"]["window"] == [4, 0]


def test_a_bidirectional_window_reaches_both_ways() -> None:
    assert stack(window=(4, 0)).bidirectional().window == (5, 5)
    full = stack(window=None, layer_types=("full_attention",) * 3)
    assert full.bidirectional() == full


def test_scale() -> None:
    assert stack(head_dim=16).scale == 0.25
    assert stack(query_scale=0.3).scale == 0.3
