"""Gemma 1. Source: transformers, models/gemma (configuration_gemma.py, modeling_gemma.py)."""

from graftlm.families.config_map import ConfigMap, given, ignored, same
from graftlm.families.gemma2 import CAUSAL
from graftlm.families.llama import ROTARY, SIZES, WEIGHTS
from graftlm.families.spec import Family

GEMMA = Family(
    name="gemma",
    config=ConfigMap(
        (
            *SIZES,
            ROTARY,
            same("hidden_act", "activation"),
            ignored("hidden_activation", "transformers reads hidden_act"),
            CAUSAL,
            given("norm_unit_offset", lambda s: True),
            given("embedding_scale", lambda s: s["hidden_size"] ** 0.5),
        )
    ),
    weights=WEIGHTS,
    architecture="GemmaForCausalLM",
)
