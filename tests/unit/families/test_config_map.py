"""Every family's config table: total, both directions, and one error that names all problems."""

import dataclasses
from typing import Any

import pytest

from graftlm.errors import ConfigError, ConversionError
from graftlm.families.config_map import ConfigMap, ignored, pinned, same
from graftlm.families.registry import FAMILIES, family_of
from graftlm.families.stock_config import complete
from graftlm.model.config import CausalLMConfig
from tiny import FAMILIES as TINY
from tiny import LLAMA3, hf_config

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"attention_bias": False, "mlp_bias": False, "rope_parameters": None, "head_dim": None}),
    ("llama", {"tie_word_embeddings": True, "eos_token_id": [2, 3], "pad_token_id": None, "hidden_act": "gelu"}),
    ("llama", {"rms_norm_eps": 1e-5, "attention_dropout": 0.1, "initializer_range": 0.01, "num_key_value_heads": None}),
    ("mistral", {}),
    ("mistral", {"sliding_window": None, "head_dim": 16, "tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": False, "head_dim": 16, "tie_word_embeddings": True}),
    ("qwen2", {"rope_parameters": LLAMA3, "num_key_value_heads": None, "sliding_window": 1}),
    ("qwen3", {}),
    ("qwen3", {"use_sliding_window": False, "bos_token_id": None, "tie_word_embeddings": True}),
    ("qwen3", {"attention_bias": True, "rope_parameters": LLAMA3, "sliding_window": 1}),
    ("gemma", {}),
    ("gemma", {"attention_bias": False, "hidden_act": "gelu", "tie_word_embeddings": False}),
    ("gemma2", {}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 144}),
    ("gemma2", {"layer_types": ["full_attention"] * 4, "hidden_activation": "silu", "sliding_window": 1}),
    ("gemma3_text", {}),
    ("gemma3_text", {"layer_types": None, "rope_parameters": None, "query_pre_attn_scalar": 168}),
    ("gemma3_text", {"attention_bias": True, "final_logit_softcapping": None, "tie_word_embeddings": False}),
    ("smollm3", {}),
    ("smollm3", {"no_rope_layers": None, "use_sliding_window": False, "sliding_window": None, "layer_types": None}),
    ("smollm3", {"attention_bias": True, "mlp_bias": False, "head_dim": 16, "rope_parameters": LLAMA3}),
    ("olmo2", {}),
    ("olmo2", {"attention_bias": False, "head_dim": 16, "rope_parameters": LLAMA3, "tie_word_embeddings": True}),
]


def our_config(raw: dict[str, Any]) -> CausalLMConfig:
    return family_of(raw["model_type"]).config.read(raw, complete(raw))


@pytest.mark.parametrize(("family", "overrides"), VARIANTS, ids=str)
def test_round_trip(family: str, overrides: dict[str, Any]) -> None:
    """Every field that the table does not ignore comes back as it was, and ours is the same a second time."""
    raw = hf_config(family, **overrides).to_dict()
    config = our_config(raw)
    table = FAMILIES[family].config
    written = table.write(config, lambda fields: complete({"model_type": family, **fields}))
    again = complete({"model_type": family, **written})
    expected = complete(raw)
    skipped = {name for rule in table.rules if not rule.write(flat(config)) for name in rule.source}
    fields = {name for rule in table.rules for name in rule.source} - skipped
    assert {"hidden_size", "rope_parameters", "eos_token_id", "head_dim"} <= fields
    for name in fields & expected.keys():
        assert again[name] == expected[name], name
    assert our_config({"model_type": family, **written}).to_dict() == config.to_dict()


def flat(config: CausalLMConfig) -> dict[str, Any]:
    names = ("tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id")
    return vars(config.decoder) | {name: getattr(config, name) for name in names}


def test_values_that_are_read() -> None:
    """Where names differ, what they mean: spelled out once by hand."""
    gemma = our_config(hf_config("gemma2").to_dict()).decoder
    assert gemma.window == (4, 0)
    assert gemma.query_scale == 0.25
    assert (gemma.attention_softcap, gemma.logit_softcap) == (5.0, 8.0)
    assert gemma.layer_types == ("sliding_attention", "full_attention") * 2
    assert gemma.embedding_scale == 32**0.5
    assert (gemma.norm_placement, gemma.norm_unit_offset, gemma.qk_norm) == ("sandwich", True, False)
    assert gemma.activation == "gelu_pytorch_tanh"
    qwen = our_config(hf_config("qwen3").to_dict()).decoder
    assert qwen.layer_types == ("full_attention",) * 2 + ("sliding_attention",) * 2
    assert (qwen.qk_norm, qwen.window, qwen.norm_placement) == (True, (4, 0), "pre")
    gemma3 = our_config(hf_config("gemma3_text").to_dict()).decoder
    assert (gemma3.qk_norm, gemma3.norm_placement, gemma3.window) == (True, "sandwich", (4, 0))
    assert {kind: parameters["rope_theta"] for kind, parameters in gemma3.rotary.items()} == {
        "sliding_attention": 100.0,
        "full_attention": 10000.0,
    }
    mistral = our_config(hf_config("mistral").to_dict()).decoder
    assert (mistral.layer_types, mistral.window) == (("sliding_attention",) * 4, (4, 0))
    mistral = our_config(hf_config("mistral", sliding_window=None).to_dict()).decoder
    assert (mistral.layer_types, mistral.window) == (("full_attention",) * 4, None)
    qwen = our_config(hf_config("qwen2").to_dict()).decoder
    assert (qwen.qkv_bias, qwen.output_bias, qwen.qk_norm) == (True, False, False)
    assert our_config(hf_config("smollm3").to_dict()).decoder.unrotated_layers == (1, 3)
    olmo = our_config(hf_config("olmo2").to_dict()).decoder
    assert (olmo.norm_placement, olmo.qk_norm, olmo.qk_norm_over) == ("output", True, "all")
    llama = our_config(hf_config("llama").to_dict()).decoder
    assert (llama.qkv_bias, llama.output_bias, llama.mlp_bias) == (True, True, True)
    assert llama.rotary == {"full_attention": LLAMA3}
    assert (llama.num_kv_heads, llama.window, llama.qk_norm) == (1, None, False)


def test_configs_of_transformers_4_are_read_as_their_successors() -> None:
    raw = hf_config("llama").to_dict()
    parameters = dict(raw.pop("rope_parameters"))
    old = raw | {"rope_theta": parameters.pop("rope_theta"), "rope_scaling": parameters, "torch_dtype": "float32"}
    assert our_config(old).decoder.rotary == {"full_attention": LLAMA3}
    text = hf_config("gemma3_text").to_dict()
    for name in ("rope_parameters", "layer_types", "_sliding_window_pattern"):
        text.pop(name)
    text |= {"rope_theta": 500.0, "rope_local_base_freq": 50.0, "sliding_window_pattern": 2}
    text |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "cache_implementation": "hybrid"}
    rotary = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
    }
    for raw in (text, {"model_type": "gemma3", "text_config": text, "vision_config": {}, "eos_token_id": [1, 106]}):
        config = our_config(raw)
        assert config.decoder.rotary == rotary
        assert config.decoder.layer_types == ("sliding_attention", "full_attention") * 2
        assert config.eos_token_id == raw["eos_token_id"]


def test_fields_that_releases_carry_beside_their_own() -> None:
    """Of SmolLM2, Qwen2.5, Gemma 1 and SmolLM3: none of them changes what transformers computes."""
    fields: dict[str, dict[str, Any]] = {
        "llama": {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}},
        "qwen2": {"use_mrope": False},
        "gemma": {"hidden_activation": None},
        "smollm3": {"max_window_layers": 28, "pretraining_tp": 2},
    }
    for family, more in fields.items():
        raw = hf_config(family).to_dict()
        assert our_config(raw | more).to_dict() == our_config(raw).to_dict()


@pytest.mark.parametrize("family", TINY)
def test_every_field_of_transformers_is_spoken_of(family: str) -> None:
    fields = {field.name for field in dataclasses.fields(TINY[family].config)} | hf_config(family).to_dict().keys()
    assert {name for name in fields - FAMILIES[family].config.known() if not name.startswith("_")} == set()


@pytest.mark.parametrize(
    ("family", "change", "messages"),
    [
        ("llama", {"shiny": 1}, ["shiny (unknown field)"]),
        (
            "gemma2",
            {"use_bidirectional_attention": True},
            ["use_bidirectional_attention=True (the donor must be causal)"],
        ),
        (
            "llama",
            {"shiny": 1, "alibi": True, "is_encoder_decoder": True},
            ["alibi (unknown field); shiny (unknown field); is_encoder_decoder=True (only decoder-only"],
        ),
        (
            "gemma",
            {"use_bidirectional_attention": True},
            ["use_bidirectional_attention=True (the donor must be causal)"],
        ),
        ("gemma3_text", {"use_bidirectional_attention": True}, ["use_bidirectional_attention=True"]),
        (
            "gemma3_text",
            {"rope_parameters": {"full_attention": {"rope_type": "default", "partial_rotary_factor": 0.5}}},
            ["rope_parameters.partial_rotary_factor"],
        ),
        ("qwen2", {"use_mrope": True}, ["use_mrope=True (only texts are known)"]),
        ("mistral", {"attention_bias": True}, ["attention_bias (unknown field)"]),
        ("llama", {"rope_interleaved": True}, ["rope_interleaved=True (only halves"]),
        ("smollm3", {"use_sliding_window": False}, ["layer_types has sliding_attention but window is not set"]),
        ("gemma2", {"shiny": 1, "use_bidirectional_attention": True}, ["shiny", "use_bidirectional_attention=True"]),
        (
            "qwen3",
            {"rope_parameters": LLAMA3 | {"partial_rotary_factor": 0.5}},
            ["rope_parameters.partial_rotary_factor"],
        ),
        ("llama", {"num_attention_heads": 5}, ["transformers refuses this config", "not a multiple"]),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named_all_at_once(family: str, change: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(ConversionError) as error:
        our_config(hf_config(family).to_dict() | change)
    for message in messages:
        assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_rope_type() -> None:
    from graftlm.model.causal_lm import CausalLM

    config = our_config(hf_config("llama").to_dict())
    config.decoder.rotary["full_attention"]["rope_type"] = "spiral"
    with pytest.raises(ConfigError, match="Unknown rope_type 'spiral'"):
        CausalLM(config)


@pytest.mark.parametrize("name", ["mamba", None, 3])
def test_unknown_family(name: object) -> None:
    with pytest.raises(ConversionError, match=r"not supported: .*Known families are llama, .*docs/add_a_family\.md"):
        family_of(name)


@pytest.mark.parametrize(("name", "reason"), [("bloom", "ALiBi"), ("mamba", "no attention"), ("opt", "their table")])
def test_refused_families_have_a_reason(name: str, reason: str) -> None:
    with pytest.raises(ConversionError, match=reason):
        family_of(name)


def test_what_a_family_cannot_express_is_refused_on_the_way_back() -> None:
    config = our_config(hf_config("gemma2").to_dict())
    with pytest.raises(ConversionError, match=r"cannot express .*norm_placement='sandwich'"):
        FAMILIES["llama"].config.write(config, lambda fields: complete({"model_type": "llama", **fields}))


def test_rules() -> None:
    assert same("a", "b").read({"a": 1}) == {"b": 1}
    assert same("a", "b").write({"b": 1}) == {"a": 1}
    assert pinned("a", 1, "why").write({}) == {"a": 1}
    with pytest.raises(ConversionError, match=r"a=2 \(why\)"):
        pinned("a", 1, "why").read({"a": 2})
    table = ConfigMap((same("a", "b"), ignored("c", "no matter")))
    assert table.known() >= {"a", "c", "model_type"}
