"""Registers graftlm's models with transformers' Auto classes; importing this module is enough."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from graftlm.model.causal_lm import CausalLM
from graftlm.model.config import CausalLMConfig, GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration

AutoConfig.register(GraftConfig.model_type, GraftConfig, exist_ok=True)
AutoConfig.register(CausalLMConfig.model_type, CausalLMConfig, exist_ok=True)
AutoModel.register(GraftConfig, GraftForConditionalGeneration, exist_ok=True)
AutoModelForSeq2SeqLM.register(GraftConfig, GraftForConditionalGeneration, exist_ok=True)
AutoModelForCausalLM.register(CausalLMConfig, CausalLM, exist_ok=True)
