"""Phi-3, Phi-3.5 and Phi-4. Source: transformers, models/phi3 (configuration_phi3.py, modeling_phi3.py).

A text that grows beyond original_max_position_embeddings while it is generated is the one case in which stock decoding
differs: stock then reads the whole text again with its long factors, and a graft goes on from what it has read.
"""

from graftlm.families.config_map import ConfigMap, Rule, ignored, same
from graftlm.families.llama import CORE
from graftlm.families.spec import (
    DERIVED_HEAD_DIM,
    EMBEDDINGS,
    PRE_NORMS,
    ROTARY_BUFFERS,
    WINDOW_EVERYWHERE,
    Family,
    layer,
    partial_rotary_for_all,
    shared_rotary,
)
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import WeightMap, fused

LAYERS, OURS = "model.layers.{layer}", "decoder.layers.{layer}"
UNREAD = ("attention_bias", "mlp_bias", "lm_head_bias", "full_attn_mod", "interpolate_factor")
"""Fields that releases store for code of their own."""


def original_length(ours: Values) -> Values:
    """The length that rotary scalings go by stands in the config as well as among its rotary parameters."""
    parameters = shared_rotary(ours)["rope_parameters"]
    return {name: parameters[name] for name in ("original_max_position_embeddings",) if name in parameters}


PHI3 = Family(
    name="phi3",
    config=ConfigMap(
        (
            *CORE,
            DERIVED_HEAD_DIM,
            same("hidden_act", "activation"),
            WINDOW_EVERYWHERE,
            Rule(
                ("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor"),
                partial_rotary_for_all,
                shared_rotary,
            ),
            Rule(("original_max_position_embeddings",), lambda s: {}, original_length),
            same("embd_pdrop", "embedding_dropout"),
            same("resid_pdrop", "residual_dropout"),
            *(ignored(name, "transformers has no such setting for this family") for name in UNREAD),
        )
    ),
    weights=WeightMap(
        (
            *EMBEDDINGS,
            fused(f"{LAYERS}.self_attn.qkv_proj.weight", *(f"{OURS}.attention.{x}_proj.weight" for x in "qkv")),
            *layer("self_attn.o_proj", "attention.o_proj"),
            fused(f"{LAYERS}.mlp.gate_up_proj.weight", *(f"{OURS}.mlp.{x}_proj.weight" for x in ("gate", "up"))),
            *layer("mlp.down_proj", "mlp.down_proj"),
            *PRE_NORMS,
        ),
        dropped=ROTARY_BUFFERS,
    ),
    architecture="Phi3ForCausalLM",
)
