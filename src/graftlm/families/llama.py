"""Llama 1 to 3. Source: transformers, models/llama (configuration_llama.py, modeling_llama.py)."""

from graftlm.families.config_map import ConfigMap, Rule, ignored, off, same
from graftlm.families.spec import (
    ATTENTION,
    EMBEDDINGS,
    MLP,
    OF_CAUSAL_LMS,
    PRE_NORMS,
    ROTARY_BUFFERS,
    Family,
    one_rotary_for_all,
    shared_rotary,
)
from graftlm.families.weight_map import WeightMap

ATTENTION_BIAS = Rule(
    ("attention_bias",),
    lambda s: {"qkv_bias": s["attention_bias"], "output_bias": s["attention_bias"]},
    lambda o: {"attention_bias": o["qkv_bias"]},
)
CORE = (
    same("vocab_size"),
    same("hidden_size"),
    same("intermediate_size"),
    same("num_hidden_layers", "num_layers"),
    same("num_attention_heads", "num_heads"),
    same("num_key_value_heads", "num_kv_heads"),
    same("max_position_embeddings"),
    same("rms_norm_eps", "norm_eps"),
    same("attention_dropout"),
    *OF_CAUSAL_LMS,
)
"""Fields that every descendant of Llama has."""
SIZES = (*CORE, same("head_dim"), ATTENTION_BIAS)
ROTARY = Rule(("rope_parameters", "rope_theta", "rope_scaling"), one_rotary_for_all, shared_rotary)
WEIGHTS = WeightMap((*EMBEDDINGS, *ATTENTION, *MLP, *PRE_NORMS), dropped=ROTARY_BUFFERS)
"""Names that Llama's descendants kept."""

LLAMA = Family(
    name="llama",
    config=ConfigMap(
        (
            *SIZES,
            ROTARY,
            same("hidden_act", "activation"),
            same("mlp_bias"),
            ignored("pretraining_tp", "splits the same matrix product over ranks"),
            ignored("max_sequence_length", "of the first conversions; transformers reads max_position_embeddings"),
            ignored("is_llama_config", "a note of SmolLM2's trainer"),
            off("rope_interleaved", "only halves of a head are rotated against each other"),
        )
    ),
    weights=WEIGHTS,
    architecture="LlamaForCausalLM",
)
