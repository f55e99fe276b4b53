"""Gemma 2. Source: transformers, models/gemma2 (configuration_gemma2.py, modeling_gemma2.py)."""

from graftlm.families.config_map import ConfigMap, Rule, given, ignored, off, same
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

QUERY_SCALE = Rule(
    ("query_pre_attn_scalar",),
    lambda s: {"query_scale": s["query_pre_attn_scalar"] ** -0.5},
    lambda o: {"query_pre_attn_scalar": round((o["query_scale"] or o["head_dim"] ** -0.5) ** -2)},
)
CAUSAL = off("use_bidirectional_attention", "the donor must be causal")
WINDOW = Rule(("sliding_window",), causal_window, window_size)
GEMMA_STACK = (
    same("hidden_activation", "activation"),
    same("final_logit_softcapping", "logit_softcap"),
    QUERY_SCALE,
    LAYER_TYPES,
    given("norm_unit_offset", lambda s: True),
    given("norm_placement", lambda s: "sandwich"),
    given("embedding_scale", lambda s: s["hidden_size"] ** 0.5),
)
"""What the stacks of Gemma 2 and 3 have in common beside their sizes."""
ATTENTION_SOFTCAP = same("attn_logit_softcapping", "attention_softcap")

SANDWICH = (
    *layer("input_layernorm", "attention_norm"),
    *layer("post_attention_layernorm", "attention_out_norm"),
    *layer("pre_feedforward_layernorm", "mlp_norm"),
    *layer("post_feedforward_layernorm", "mlp_out_norm"),
)

GEMMA2 = Family(
    name="gemma2",
    config=ConfigMap(
        (
            *SIZES,
            *GEMMA_STACK,
            ROTARY,
            WINDOW,
            ATTENTION_SOFTCAP,
            ignored("hidden_act", "transformers reads hidden_activation"),
            ignored("sliding_window_size", "transformers reads sliding_window"),
            ignored("cache_implementation", "a choice of cache, not of the model"),
            CAUSAL,
        )
    ),
    weights=WeightMap(
        (*EMBEDDINGS, *ATTENTION, *MLP, *SANDWICH),
        dropped=ROTARY_BUFFERS,
    ),
    architecture="Gemma2ForCausalLM",
)
