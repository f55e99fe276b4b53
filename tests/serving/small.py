"""What serving is tested on: a tiny graft, and task encoders as tuning would leave them."""

from collections.abc import Callable
from pathlib import Path

import torch

import tiny
from graftlm.adaptation.task_encoder import save_task_encoder
from graftlm.data.task import Task
from graftlm.model.adapter import Adapter, AdapterConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.engine import Engine

MAX_NEW_TOKENS = 10
MakeEngine = Callable[..., Engine]
Expect = Callable[..., str]


def tiny_graft(form: str = "merged-source") -> GraftForConditionalGeneration:
    """A small random graft for the ids of the tiny tokenizer."""
    settings = tiny.GRAFTS[form]
    wide = {
        side: tiny.stack(
            vocab_size=tiny.VOCABULARY, num_layers=settings[side].num_layers, final_norm=settings[side].final_norm
        )
        for side in ("encoder", "decoder")
    }
    return tiny.graft(**settings | wide)


def write_encoder(
    folder: Path, seed: int, *tasks: Task, form: str = "merged-source", adapter: AdapterConfig | None = None
) -> Path:
    """A task encoder of the tiny graft, with or without a decoder adapter, as tuning would leave it."""
    model = tiny_graft(form)
    if adapter is not None:
        model.decoder_adapter = Adapter(adapter, model.decoder.layers)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("encoder.", "decoder_adapter.")):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    save_task_encoder(model, folder, name="tuned", tasks=[task.settings() for task in tasks], run={})
    return folder
