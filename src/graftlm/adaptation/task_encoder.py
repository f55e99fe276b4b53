"""The task encoder: the artifact that tuning on a frozen decoder writes, and that only its own decoder accepts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from graftlm.adaptation.fingerprint import fingerprint
from graftlm.data.task import Task
from graftlm.errors import CheckpointError, TaskError
from graftlm.families.donor import read_json
from graftlm.families.tensors import SINGLE, TensorFolder, save_tensors
from graftlm.files import atomic_folder, write_json
from graftlm.model.bridge import Bridge
from graftlm.model.config import BridgeConfig, GraftConfig, StackConfig
from graftlm.model.encoder import Encoder
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.task_encoder import TaskEncoder

MANIFEST = "task_encoder.json"
FORMAT = 2
FIELDS = ("name", "decoder", "encoder", "bridge", "settings", "tasks")
"""What a manifest must hold, beside its format and the record of its run."""
PARTS = ("encoder.", "bridge.")
SETTINGS = ("encoder_attention", "share_embeddings")
"""Fields of GraftConfig that belong to the encoder's side and travel with it."""


def save_task_encoder(
    model: GraftForConditionalGeneration,
    out: str | Path,
    *,
    name: str,
    tasks: Sequence[dict[str, Any]],
    run: dict[str, Any],
    replace: bool = False,
) -> dict[str, Any]:
    """Write encoder and bridge of `model` into the folder `out`, new unless it is to be replaced; returns the manifest.

    `tasks` are the settings to decode with, of each task that it was tuned on; `run` the record of the training. The
    decoder is not stored: the manifest holds its fingerprint.
    """
    config = model.config
    manifest = {
        "format": FORMAT,
        "name": name,
        "decoder": {"fingerprint": fingerprint(model), "path": str(model.name_or_path)},
        "encoder": config.encoder.to_dict(),
        "bridge": config.bridge.to_dict(),
        "settings": {field: getattr(config, field) for field in SETTINGS},
        "tasks": list(tasks),
        "run": run,
    }
    tensors = {key: value for key, value in model.state_dict().items() if key.startswith(PARTS)}
    with atomic_folder(out, replace=replace) as folder:
        save_tensors(tensors, folder / SINGLE)
        write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Manifest of a task encoder. Raises: CheckpointError when the folder holds none, or one of another format."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a task encoder (no {MANIFEST}); give a folder that graftlm tune wrote.")
    manifest = read_json(path)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {manifest.get('format')!r}; this graftlm reads format {FORMAT}.")
    missing = [field for field in FIELDS if not manifest.get(field)]
    if missing:
        raise CheckpointError(f"{path} is damaged (no {missing[0]!r}); tune the task encoder again.")
    return manifest


def task_of(manifest: dict[str, Any], name: str | None = None) -> Task:
    """Settings of the task that a task encoder was tuned on; of several, the one called `name`.

    Raises: TaskError when there are several and no name, or none of that name.
    """
    tasks = {settings["name"]: settings for settings in manifest["tasks"]}
    if name is None and len(tasks) > 1:
        raise TaskError(f"This task encoder holds several tasks; choose one with --task: {', '.join(tasks)}.")
    chosen = name or next(iter(tasks))
    if chosen not in tasks:
        raise TaskError(f"This task encoder holds no task {chosen!r}; it holds {', '.join(tasks)}.")
    return Task.from_settings(tasks[chosen])


def load_task_encoder(model: GraftForConditionalGeneration, folder: str | Path) -> dict[str, Any]:
    """Put a task encoder in the place of `model`'s encoder and bridge; returns its manifest.

    Raises: CheckpointError when it was tuned on another decoder, or its files are damaged; the model is then unchanged.
    """
    manifest, config, parts = _read(model, folder)
    model.encoder, model.bridge = parts.encoder, parts.bridge
    model.config.encoder, model.config.bridge = config.encoder, config.bridge
    for field in SETTINGS:
        setattr(model.config, field, getattr(config, field))
    return manifest


def add_task_encoder(
    model: GraftForConditionalGeneration, folder: str | Path, name: str | None = None
) -> dict[str, Any]:
    """Attach a task encoder beside `model`'s own encoder, under its own name or another; returns its manifest.

    Also a method of the model: model.add_task_encoder(folder, name="webnlg").
    Raises: as load_task_encoder, and ConfigError for a name that is taken.
    """
    manifest, _, parts = _read(model, folder)
    model.attach_task_encoder(manifest["name"] if name is None else name, parts)
    return manifest


def _read(model: GraftForConditionalGeneration, folder: str | Path) -> tuple[dict[str, Any], GraftConfig, TaskEncoder]:
    manifest = read_manifest(folder)
    found, wanted = fingerprint(model), manifest["decoder"]["fingerprint"]
    if found != wanted:
        raise CheckpointError(
            f"{folder} was tuned on another decoder (fingerprint {wanted[:12]}, this model has {found[:12]}); "
            f"load it on {manifest['decoder']['path'] or 'the model that it was tuned on'}, in the dtype of its folder."
        )
    values = model.config.to_dict() | manifest["settings"]
    values |= {"encoder": manifest["encoder"], "bridge": manifest["bridge"]}
    config = GraftConfig.from_dict(values)
    return manifest, config, _parts(model, config, TensorFolder(folder))


def _parts(model: GraftForConditionalGeneration, config: GraftConfig, tensors: TensorFolder) -> TaskEncoder:
    assert isinstance(config.encoder, StackConfig)
    assert isinstance(config.bridge, BridgeConfig)
    causal = config.encoder_attention == "causal"
    with torch.device("meta"):
        encoder = Encoder(config.encoder, causal=causal, own_embedding=not config.share_embeddings)
        bridge = Bridge(config.bridge)
    parts = torch.nn.ModuleDict({"encoder": encoder, "bridge": bridge})
    expected = {name: tuple(tensor.shape) for name, tensor in parts.state_dict().items()}
    tensors.check(expected)
    state = {name: tensors.read(name).to(model.device, model.dtype) for name in expected}
    parts.load_state_dict(state, assign=True)
    parts.train(model.training)
    return TaskEncoder(encoder, bridge)
