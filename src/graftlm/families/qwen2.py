"""Qwen2 and Qwen2.5 (dense). Source: transformers, models/qwen2 (configuration_qwen2.py, modeling_qwen2.py)."""

from graftlm.families.config_map import ConfigMap, Rule, given, ignored, off, same
from graftlm.families.llama import CORE, ROTARY, WEIGHTS
from graftlm.families.spec import DERIVED_HEAD_DIM, LAYER_TYPES, Family, causal_window, window_size

SWITCHED_WINDOW = Rule(
    ("sliding_window", "use_sliding_window"),
    causal_window,
    lambda o: window_size(o) | {"use_sliding_window": o["window"] is not None},
)

QWEN2 = Family(
    name="qwen2",
    config=ConfigMap(
        (
            *CORE,
            DERIVED_HEAD_DIM,
            ROTARY,
            LAYER_TYPES,
            SWITCHED_WINDOW,
            same("hidden_act", "activation"),
            ignored("max_window_layers", "transformers has folded it into layer_types"),
            off("use_mrope", "only texts are known"),
            given("qkv_bias", lambda s: True),
        )
    ),
    weights=WEIGHTS,
    architecture="Qwen2ForCausalLM",
)
