"""Registers graftlm's models with transformers' Auto classes; importing this module is enough.

It also gives the model `add_task_encoder`, which reads files and so lies above the model.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from graftlm.adaptation.task_encoder import add_task_encoder
from graftlm.model.causal_lm import CausalLM
from graftlm.model.config import CausalLMConfig, GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration

AutoConfig.register(GraftConfig.model_type, GraftConfig, exist_ok=True)
AutoConfig.register(CausalLMConfig.model_type, CausalLMConfig, exist_ok=True)
AutoModel.register(GraftConfig, GraftForConditionalGeneration, exist_ok=True)
AutoModelForSeq2SeqLM.register(GraftConfig, GraftForConditionalGeneration, exist_ok=True)
AutoModelForCausalLM.register(CausalLMConfig, CausalLM, exist_ok=True)

GraftForConditionalGeneration.add_task_encoder = add_task_encoder
