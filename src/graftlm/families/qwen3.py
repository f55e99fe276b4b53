"""Qwen3 (dense). Source: transformers, models/qwen3 (configuration_qwen3.py, modeling_qwen3.py)."""

from graftlm.families.config_map import ConfigMap, Rule, given, ignored, same
from graftlm.families.llama import ROTARY, SIZES
from graftlm.families.spec import (
    ATTENTION,
    EMBEDDINGS,
    LAYER_TYPES,
    MLP,
    ROTARY_BUFFERS,
    Family,
    causal_window,
    layer,
    window_size,
)
from graftlm.families.weight_map import WeightMap

QWEN3 = Family(
    name="qwen3",
    config=ConfigMap(
        (
            *SIZES,
            ROTARY,
            same("hidden_act", "activation"),
            LAYER_TYPES,
            Rule(
                ("sliding_window", "use_sliding_window"),
                causal_window,
                lambda o: window_size(o) | {"use_sliding_window": o["window"] is not None},
            ),
            ignored("max_window_layers", "transformers has folded it into layer_types"),
            given("qk_norm", lambda s: True),
        )
    ),
    weights=WeightMap(
        (
            *EMBEDDINGS,
            *ATTENTION,
            *MLP,
            *layer("self_attn.q_norm", "attention.q_norm"),
            *layer("self_attn.k_norm", "attention.k_norm"),
            *layer("input_layernorm", "attention_norm"),
            *layer("post_attention_layernorm", "mlp_norm"),
        ),
        dropped=ROTARY_BUFFERS,
    ),
    architecture="Qwen3ForCausalLM",
)
