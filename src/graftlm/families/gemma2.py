"""Gemma 2. Source: transformers, models/gemma2 (configuration_gemma2.py, modeling_gemma2.py)."""

from graftlm.families.config_map import ConfigMap, Rule, given, ignored, pinned, same
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

GEMMA2 = Family(
    name="gemma2",
    config=ConfigMap(
        (
            *SIZES,
            ROTARY,
            same("hidden_activation", "activation"),
            ignored("hidden_act", "transformers reads hidden_activation"),
            ignored("cache_implementation", "a choice of cache, not of the model"),
            same("attn_logit_softcapping", "attention_softcap"),
            same("final_logit_softcapping", "logit_softcap"),
            Rule(
                ("query_pre_attn_scalar",),
                lambda s: {"query_scale": s["query_pre_attn_scalar"] ** -0.5},
                lambda o: {"query_pre_attn_scalar": round(o["query_scale"] ** -2)},
            ),
            LAYER_TYPES,
            Rule(("sliding_window",), causal_window, window_size),
            pinned("use_bidirectional_attention", None, "the donor must be causal"),
            given("norm_unit_offset", lambda s: True),
            given("norm_placement", lambda s: "sandwich"),
            given("embedding_scale", lambda s: s["hidden_size"] ** 0.5),
        )
    ),
    weights=WeightMap(
        (
            *EMBEDDINGS,
            *ATTENTION,
            *MLP,
            *layer("input_layernorm", "attention_norm"),
            *layer("post_attention_layernorm", "attention_out_norm"),
            *layer("pre_feedforward_layernorm", "mlp_norm"),
            *layer("post_feedforward_layernorm", "mlp_out_norm"),
        ),
        dropped=ROTARY_BUFFERS,
    ),
    architecture="Gemma2ForCausalLM",
)
