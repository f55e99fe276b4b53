"""Adapters on disk: LoRA and (IA)³ in PEFT's own file format, biases as plain tensors.

Source: PEFT, docs/source/developer_guides/checkpoint.md (https://github.com/huggingface/peft).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from graftlm.errors import CheckpointError
from graftlm.families.stock_config import read_json
from graftlm.families.tensors import TensorFolder, save_tensors
from graftlm.files import write_json
from graftlm.model.adapter import IA3, TARGETS, Adapter, AdapterConfig
from graftlm.model.block import Layers

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Side = Literal["encoder", "decoder"]
PREFIX = "base_model.model."
"""What PEFT puts before a tensor's name in the model."""
WITHOUT_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "feedforward_modules",
    "inference_mode",
    "init_ia3_weights",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
)
"""Fields of PEFT's config that are read elsewhere, or that do not change what a trained adapter computes."""


def save_adapter(adapter: Adapter, folder: Path, side: Side, base: str) -> None:
    """Write the adapter of a graft's `side` into a new folder in `folder`; `base` names the graft."""
    folder = folder / f"{side}_adapter"
    folder.mkdir()
    prefix = "" if adapter.config.kind == "bias" else PREFIX
    save_tensors({f"{prefix}{side}.{name}": tensor for name, tensor in adapter.state_dict().items()}, folder / TENSORS)
    if adapter.config.kind != "bias":
        write_json(folder / CONFIG, peft_config(adapter, side, base))


def load_adapter(config: AdapterConfig, layers: Layers, folder: Path, side: Side) -> Adapter:
    """The adapter that `save_adapter`, or PEFT for the same targets, wrote; it stands beside `layers`.

    Raises: CheckpointError for files that are missing or damaged, and for what PEFT knows and graftlm does not.
    """
    folder = folder / f"{side}_adapter"
    prefix = "" if config.kind == "bias" else PREFIX
    if config.kind != "bias":
        _check_peft(read_json(folder / CONFIG), config, folder / CONFIG)
    tensors = TensorFolder(folder, single=TENSORS)
    with torch.device("meta"):
        adapter = Adapter(config, layers)
    expected = {name: tuple(tensor.shape) for name, tensor in adapter.state_dict().items()}
    tensors.check({f"{prefix}{side}.{name}": shape for name, shape in expected.items()})
    weight = next(layers.parameters())
    state = {name: tensors.read(f"{prefix}{side}.{name}").to(weight.device, weight.dtype) for name in expected}
    adapter.load_state_dict(state, assign=True)
    return adapter


def peft_config(adapter: Adapter, side: Side, base: str) -> dict[str, Any]:
    """PEFT's description of an adapter; its targets are those of one side, since both sides may share weights."""
    config = adapter.config
    shared = {"base_model_name_or_path": base, "inference_mode": True, "task_type": "SEQ_2_SEQ_LM"}
    if config.kind == "ia3":
        targets = {
            "target_modules": _pattern(side, TARGETS["ia3"]),
            "feedforward_modules": _pattern(side, (IA3.INNER,)),
        }
        return {"peft_type": "IA3", **shared, **targets, "fan_in_fan_out": False}
    return {
        "peft_type": "LORA",
        **shared,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": _pattern(side, TARGETS["lora"]),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
    }


def adapter_values(adapter: Adapter | None) -> dict[str, Any] | None:
    """An adapter's config as plain JSON values, for a manifest."""
    return None if adapter is None else asdict(adapter.config)


def _pattern(side: Side, names: Sequence[str]) -> str:
    return rf"{side}\.layers\.\d+\.\w+\.({'|'.join(names)})"


def _check_peft(values: dict[str, Any], config: AdapterConfig, file: Path) -> None:
    stated = values.get("peft_type"), values.get("r"), values.get("lora_alpha")
    wanted = (config.kind.upper(), config.rank, config.alpha)
    if stated != wanted:
        raise CheckpointError(
            f"{file} says {stated[0]} with r {stated[1]} and lora_alpha {stated[2]}, but the task encoder says "
            f"{wanted[0]} with {wanted[1]} and {wanted[2]}; tune it again."
        )
    for name, value in values.items():
        if name not in WITHOUT_EFFECT and value and value != "none":
            raise CheckpointError(f"{file} has {name} = {value!r}, which graftlm does not compute; use plain adapters.")
