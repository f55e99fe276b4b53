"""Gemma 3 (text). Source: transformers, models/gemma3 (configuration_gemma3.py, modeling_gemma3.py)."""

from typing import Any

from graftlm.errors import ConversionError
from graftlm.families.config_map import ConfigMap, Rule, given, ignored
from graftlm.families.gemma2 import GEMMA_STACK, SANDWICH, WINDOW
from graftlm.families.llama import SIZES
from graftlm.families.spec import ATTENTION, EMBEDDINGS, MLP, ROTARY_BUFFERS, Family, layer
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import WeightMap


def rotary_by_layer_type(values: Values) -> Values:
    """Rotary parameters of their own for each type of layer that the stack has."""
    kinds = {kind: dict(values["rope_parameters"][kind]) for kind in dict.fromkeys(values["layer_types"])}
    if any(parameters.get("partial_rotary_factor") not in (None, 1.0) for parameters in kinds.values()):
        raise ConversionError("rope_parameters.partial_rotary_factor (only heads that are rotated whole are known)")
    return {"rotary": kinds}


def causal(values: Values) -> dict[str, Any]:
    """Nothing of ours, for a model that sees only what came before."""
    if values.get("use_bidirectional_attention"):
        raise ConversionError("use_bidirectional_attention=True (the donor must be causal)")
    return {}


GEMMA3_STACK = (
    *GEMMA_STACK,
    Rule(
        ("rope_parameters", "rope_theta", "rope_scaling", "rope_local_base_freq"),
        rotary_by_layer_type,
        lambda o: {"rope_parameters": {kind: dict(parameters) for kind, parameters in o["rotary"].items()}},
    ),
    Rule(("use_bidirectional_attention",), causal, lambda o: {}),
    ignored("attn_logit_softcapping", "transformers reads it and does not apply it"),
    ignored("sliding_window_pattern", "transformers has folded it into layer_types"),
    ignored("cache_implementation", "a choice of cache, not of the model"),
    given("qk_norm", lambda s: True),
)

GEMMA3 = Family(
    name="gemma3_text",
    config=ConfigMap((*SIZES, *GEMMA3_STACK, WINDOW)),
    weights=WeightMap(
        (
            *EMBEDDINGS,
            *ATTENTION,
            *MLP,
            *SANDWICH,
            *layer("self_attn.q_norm", "attention.q_norm"),
            *layer("self_attn.k_norm", "attention.k_norm"),
        ),
        dropped=ROTARY_BUFFERS,
    ),
    architecture="Gemma3ForCausalLM",
)
