"""Qwen3 (dense). Source: transformers, models/qwen3 (configuration_qwen3.py, modeling_qwen3.py)."""

from graftlm.families.config_map import ConfigMap, given, ignored, same
from graftlm.families.llama import ROTARY, SIZES
from graftlm.families.qwen2 import SWITCHED_WINDOW
from graftlm.families.spec import (
    ATTENTION,
    EMBEDDINGS,
    LAYER_TYPES,
    MLP,
    PRE_NORMS,
    QK_NORMS,
    ROTARY_BUFFERS,
    Family,
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
            SWITCHED_WINDOW,
            ignored("max_window_layers", "transformers has folded it into layer_types"),
            given("qk_norm", lambda s: True),
        )
    ),
    weights=WeightMap(
        (
            *EMBEDDINGS,
            *ATTENTION,
            *MLP,
            *QK_NORMS,
            *PRE_NORMS,
        ),
        dropped=ROTARY_BUFFERS,
    ),
    architecture="Qwen3ForCausalLM",
)
