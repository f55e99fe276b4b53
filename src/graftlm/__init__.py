"""graftlm: encoder–decoders made of language models, with one small encoder per task on one frozen decoder."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from graftlm.adaptation.adapt import adapt, adapt_to_folder
    from graftlm.adaptation.export import export
    from graftlm.adaptation.fold import fold
    from graftlm.adaptation.scratch import new, new_to_folder
    from graftlm.adaptation.store import load_graft
    from graftlm.adaptation.task_encoder import load_task_encoder, save_task_encoder
    from graftlm.data.tokenizers import Tokenizers, tokenizers_of
    from graftlm.families.donor import load_causal_lm
    from graftlm.families.locate import locate
    from graftlm.generation.kv_prefix import kv_prefix, left_padded
    from graftlm.model.causal_lm import CausalLM
    from graftlm.model.config import BridgeConfig, CausalLMConfig, GraftConfig, StackConfig
    from graftlm.model.modeling import GraftForConditionalGeneration
    from graftlm.serving.engine import Engine
    from graftlm.serving.request import Completion, Request

_HOMES = {
    "adapt": "graftlm.adaptation.adapt",
    "adapt_to_folder": "graftlm.adaptation.adapt",
    "export": "graftlm.adaptation.export",
    "fold": "graftlm.adaptation.fold",
    "new": "graftlm.adaptation.scratch",
    "new_to_folder": "graftlm.adaptation.scratch",
    "load_task_encoder": "graftlm.adaptation.task_encoder",
    "save_task_encoder": "graftlm.adaptation.task_encoder",
    "Tokenizers": "graftlm.data.tokenizers",
    "tokenizers_of": "graftlm.data.tokenizers",
    "load_causal_lm": "graftlm.families.donor",
    "load_graft": "graftlm.adaptation.store",
    "locate": "graftlm.families.locate",
    "kv_prefix": "graftlm.generation.kv_prefix",
    "left_padded": "graftlm.generation.kv_prefix",
    "CausalLM": "graftlm.model.causal_lm",
    "BridgeConfig": "graftlm.model.config",
    "CausalLMConfig": "graftlm.model.config",
    "GraftConfig": "graftlm.model.config",
    "StackConfig": "graftlm.model.config",
    "GraftForConditionalGeneration": "graftlm.model.modeling",
    "Engine": "graftlm.serving.engine",
    "Completion": "graftlm.serving.request",
    "Request": "graftlm.serving.request",
}

__all__ = [
    "BridgeConfig",
    "CausalLM",
    "CausalLMConfig",
    "Completion",
    "Engine",
    "GraftConfig",
    "GraftForConditionalGeneration",
    "Request",
    "StackConfig",
    "Tokenizers",
    "adapt",
    "adapt_to_folder",
    "export",
    "fold",
    "kv_prefix",
    "left_padded",
    "load_causal_lm",
    "load_graft",
    "load_task_encoder",
    "locate",
    "new",
    "new_to_folder",
    "save_task_encoder",
    "tokenizers_of",
]


def __getattr__(name: str) -> Any:
    # Names load on first use, so that `import graftlm` stays free of torch; a model class also registers itself.
    if name not in _HOMES:
        raise AttributeError(f"module 'graftlm' has no attribute {name!r}")
    import_module("graftlm.hf")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
