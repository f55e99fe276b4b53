"""The run folder: checkpoints from which a run goes on exactly, as safetensors and JSON; nothing is pickled.

OUT.run/
  step-00000200/     weights.safetensors      what trains, by name
                     optimizer.safetensors    its moments
                     random.safetensors       states of the random generators
                     trainer_state.json       transformers' own count of updates
                     state.json               what the run is, its history, schedule and optimizer settings, and hashes
                                              of the files above
                     of several processes each has its own files of tensors (parts.py)
  best-00000100/     weights.safetensors      at the lowest validation loss, where that was earlier
  point-00000100/    weights.safetensors      for the average that the run is to end with
  bad-00000123.json                           why a run stopped at that update, and the examples that it saw there
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from graftlm.errors import CheckpointError, TrainingError
from graftlm.files import flush, write_json
from graftlm.training.history import History
from graftlm.training.parts import Hashes, Parts, damaged, files_of, own_parts, sha256, write_together
from graftlm.training.ranks import is_first, rank, wait, world

WEIGHTS, OPTIMIZER, RANDOM = "weights", "optimizer", "random"
"""Kinds of tensors."""
STATE = "state.json"

OWN = re.compile(r"\.?(step|best|point|bad)-\d{8}(\..*)?")
"""Names of what a run writes, and of what a crash may leave of it; nothing else in a run folder is ever touched."""


class RunFolder:
    """The checkpoints of one run. `identity` says what the run is: settings, tasks, data and model, as plain JSON.

    `keep` is how many of its checkpoints stay.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], keep: int = 1) -> None:
        self.path = Path(path)
        self.identity = json.loads(json.dumps(identity))
        self.keep = keep

    def last(self) -> Path | None:
        """The newest checkpoint, if there is one."""
        return max(self.path.glob("step-*"), default=None)

    def last_whole(self) -> Path | None:
        """The newest checkpoint whose files are as they were written; None where there is no checkpoint at all.

        Raises: CheckpointError, of the newest, where none is whole.
        """
        first: CheckpointError | None = None
        for checkpoint in sorted(self.path.glob("step-*"), reverse=True):
            try:
                check_whole(checkpoint)
                return checkpoint
            except CheckpointError as error:
                first = first or error
        if first is not None:
            raise first
        return None

    def check(self) -> None:
        """Raises: TrainingError for a path that is a file, or a folder with anything in it that is not of a run."""
        if self.path.is_file():
            raise TrainingError(f"{self.path} is a file where checkpoints should go; move it or choose another --out.")
        others = sorted(path.name for path in self.path.glob("*") if not OWN.fullmatch(path.name))
        if others:
            raise TrainingError(
                f"{self.path} holds {others[0]}, but is for checkpoints only; move it away or choose another --out."
            )

    def best(self, step: int) -> Path:
        """Where the best weights are, when they are those of update `step`."""
        return self.path / f"best-{step:08d}"

    def point(self, step: int) -> Path:
        """Where the weights of update `step` are kept for an average."""
        return self.path / f"point-{step:08d}"

    def bad(self, step: int) -> Path:
        """Where it is written why a run stopped at update `step`."""
        return self.path / f"bad-{step:08d}.json"

    def check_identity(self, checkpoint: Path) -> None:
        """Raises: TrainingError naming the differences when `checkpoint` belongs to another run."""
        then, now = (dict(_flat(value)) for value in (read_state(checkpoint)["identity"], self.identity))
        differences = [
            f"{name} was {_short(then.get(name))} and is {_short(now.get(name))}"
            for name in then | now
            if then.get(name) != now.get(name)
        ]
        if differences:
            raise TrainingError(
                f"{checkpoint} belongs to another run ({'; '.join(differences[:8])}); resume with the same settings, "
                f"or remove {self.path} to start anew."
            )

    def save(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        trainer_state: TrainerState,
        history: History,
    ) -> None:
        """Write a checkpoint aside, give it its name, then remove what is passed; each process writes what it holds.

        Raises: GraftError when it cannot be written, and those before it stay.
        """
        held = optimizer.state_dict()
        moments = {f"{i}.{key}": x for i, values in held["state"].items() for key, x in values.items()}
        state = {
            "identity": self.identity,
            "history": dataclasses.asdict(history),
            "optimizer": held["param_groups"],
            "schedule": scheduler.state_dict(),
        }

        def finish(folder: Path, hashes: Hashes) -> None:
            own = folder / TRAINER_STATE_NAME
            dataclasses.replace(trainer_state, log_history=[]).save_to_json(str(own))
            write_json(folder / STATE, state | {"sha256": hashes | {own.name: sha256(own)}})
            # A power cut must not leave the name of a checkpoint without what is in it.
            flush(folder)

        step = trainer_state.global_step
        kinds = {WEIGHTS: own_parts(trained(model)), OPTIMIZER: own_parts(moments), RANDOM: _random_states()}
        write_together(self.path / f"step-{step:08d}", kinds, finish)
        if is_first():
            self._remove_passed(step, None if history.best is None else history.best["step"])
        wait()

    def remove(self) -> None:
        """Delete what the run has written, once what it was for is there, and the folder if nothing else is in it."""
        for path in self._own():
            _delete(path)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def _remove_passed(self, step: int, best: int | None) -> None:
        """Delete all but the newest checkpoints and the best weights that each of them refers to.

        What is numbered later than `step` and `best` is of a future that a resumed run did not reach again.
        """
        steps, bests = ([step_of(path) for path in self.path.glob(f"{kind}-????????")] for kind in ("step", "best"))
        kept = sorted(number for number in steps if number <= step)[-self.keep :]
        bests = [number for number in bests if best is not None and number <= best]
        names = {f"step-{number:08d}" for number in kept} | {
            self.best(max(numbers)).name for at in kept if (numbers := [number for number in bests if number <= at])
        }
        for path in self._own():
            if path.name not in names and not path.name.startswith(("bad-", "point-")):
                _delete(path)

    def _own(self) -> list[Path]:
        return [path for path in self.path.glob("*") if OWN.fullmatch(path.name)]


def trained(model: nn.Module) -> dict[str, Tensor]:
    """What trains, by name; the tensors are the model's own."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write what trains into `folder`, whole or not at all."""
    write_together(folder, {WEIGHTS: own_parts(trained(model))})


@torch.no_grad()
def restore_weights(model: nn.Module, *folders: Path) -> None:
    """Put the weights of a checkpoint into `model`, bit for bit; of several, their mean.

    Raises: CheckpointError when they are damaged or of another model.
    """
    held = trained(model)
    stored = [Parts(folder, WEIGHTS) for folder in folders]
    for folder, weights in zip(folders, stored, strict=True):
        if {name: p.shape for name, p in held.items()} != weights.shapes:
            raise CheckpointError(f"The weights in {folder} are not of this model; remove the folder to start anew.")
    for name, parameter in held.items():
        parts = torch.stack([weights.like(name, parameter).double() for weights in stored])
        parameter.copy_(parts.mean(0).to(parameter.dtype))


def restore_optimizer(optimizer: Optimizer, scheduler: LRScheduler, folder: Path) -> None:
    """Put optimizer and schedule where the checkpoint left them. Raises: CheckpointError for damaged files."""
    state = read_state(folder)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    stored = Parts(folder, OPTIMIZER)
    for name in stored.shapes:
        number, key = name.split(".", 1)
        moments.setdefault(int(number), {})[key] = stored.like(name, parameters[int(number)])
    optimizer.load_state_dict({"state": moments, "param_groups": state["optimizer"]})
    scheduler.load_state_dict(state["schedule"])


def restore_random(folder: Path) -> None:
    """Put torch's random generators where the checkpoint left them. Raises: CheckpointError for damaged files."""
    files = files_of(folder, RANDOM)
    # Of another number of processes, none has a state of its own to go on from.
    states = _read(files[rank() if len(files) == world() else 0])
    torch.set_rng_state(states.pop("cpu"))
    if states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([states[name] for name in sorted(states)])


def restore_history(folder: Path) -> History:
    """What the run had measured when the checkpoint was written, and that it goes on from there.

    Raises: CheckpointError for damaged files.
    """
    history = History(**read_state(folder)["history"])
    history.losses = [(step, loss) for step, loss in history.losses]
    history.lately = [(loss, norm) for loss, norm in history.lately]
    history.resumed_at.append(step_of(folder))
    return history


def check_whole(folder: Path) -> None:
    """Raises: CheckpointError where a file of a checkpoint is missing, or not as it was written."""
    hashes: Any = read_state(folder).get("sha256")
    if not isinstance(hashes, dict) or TRAINER_STATE_NAME not in hashes:
        raise damaged(folder / STATE)
    for name, value in hashes.items():
        try:
            whole = sha256(folder / name) == value
        except OSError as error:
            raise damaged(folder / name) from error
        if not whole:
            raise damaged(folder / name)


def step_of(folder: Path) -> int:
    """Updates done when a checkpoint was written."""
    return int(folder.name.rpartition("-")[2])


def read_state(folder: Path) -> dict[str, Any]:
    """The checkpoint's state.json. Raises: CheckpointError when it, or transformers' own state, is damaged."""
    _read_json(folder / TRAINER_STATE_NAME, ("global_step", "max_steps"))
    return _read_json(folder / STATE, ("identity", "history", "optimizer", "schedule"))


def _read_json(file: Path, fields: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(file) from error
    if not isinstance(value, dict) or not all(field in value for field in fields):
        raise damaged(file)
    return value


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise damaged(file) from error


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _random_states() -> dict[str, Tensor]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state()} | {f"cuda.{i:02d}": state for i, state in enumerate(devices)}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield name, value
        return
    for key, part in value.items():
        yield from _flat(part, f"{name}.{key}" if name else key)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 24 else f"{text[:20]}…"
