"""Mistral 7B and what is built like it. Source: transformers, models/mistral (configuration_mistral.py)."""

from graftlm.families.config_map import ConfigMap, same
from graftlm.families.llama import CORE, ROTARY, WEIGHTS
from graftlm.families.spec import DERIVED_HEAD_DIM, WINDOW_EVERYWHERE, Family

MISTRAL = Family(
    name="mistral",
    config=ConfigMap((*CORE, DERIVED_HEAD_DIM, ROTARY, WINDOW_EVERYWHERE, same("hidden_act", "activation"))),
    weights=WEIGHTS,
    architecture="MistralForCausalLM",
)
