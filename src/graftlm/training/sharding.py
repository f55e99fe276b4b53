"""FSDP2: each process holds a part of every weight, and of its gradient and moments."""

from __future__ import annotations

import copy
import os

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from graftlm.errors import ConfigError
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.checkpoint import RunFolder, trained
from graftlm.training.ranks import whole, world
from graftlm.training.settings import TuneSettings

ASKED = "ACCELERATE_USE_FSDP"
"""Set by accelerate launch for a config with FSDP."""


def take_over_sharding(settings: TuneSettings, run_folder: RunFolder | None) -> bool:
    """FSDP was asked for. accelerate, which wraps module by module and only on GPUs, is told to leave it alone.

    Raises: ConfigError for what several processes cannot do.
    """
    if world() == 1:
        return False
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ConfigError("Checkpoints of DeepSpeed cannot be read or written here; launch with FSDP instead.")
    assert run_folder is not None, "several processes have their best weights in a run folder"
    if settings.batch_size is not None and settings.batch_size % (settings.accumulation * world()):
        parts = "" if settings.accumulation == 1 else f" times the accumulation of {settings.accumulation}"
        raise ConfigError(f"batch_size is {settings.batch_size}; make it a multiple of the {world()} processes{parts}.")
    asked = os.environ.get(ASKED, "false").lower() == "true"
    if asked and settings.phases:
        raise ConfigError("phases cannot be trained with FSDP; launch without it, or give one freeze plan.")
    if asked and settings.optimizer == "muon":
        raise ConfigError("optimizer muon needs whole matrices, which FSDP divides; launch without it, or take adamw.")
    os.environ[ASKED] = "false"
    return asked


def sharded_copy(model: GraftForConditionalGeneration) -> GraftForConditionalGeneration:
    """A copy in parts, to be trained in the place of `model`.

    An encoder layer and the decoder layer whose weights it shares are one unit, and so is all that is in no layer:
    tables, a tied head, bridge and adapters.
    """
    twin = copy.deepcopy(model)
    for unit in units(twin):
        fully_shard(unit)
    fully_shard(twin)
    # What transformers reads to leave placement and the reduction of gradients to the model.
    twin._is_distributed_loading_by_transformers = True
    twin._is_fsdp_managed_module = True  # type: ignore[assignment]
    return twin


def units(model: GraftForConditionalGeneration) -> list[list[nn.Module]]:
    """Layers that are gathered and freed together."""
    encoder, decoder = list(model.encoder.layers), list(model.decoder.layers)
    if not model.config.share_layers:
        return [[layer] for layer in (*encoder, *decoder)]
    return [[*encoder[i : i + 1], layer] for i, layer in enumerate(decoder)]


@torch.no_grad()
def copy_back(twin: nn.Module, model: nn.Module) -> None:
    """Put what a sharded copy has learned into `model`."""
    held = dict(model.named_parameters())
    for name, tensor in trained(twin).items():
        held[name].copy_(whole(tensor))
