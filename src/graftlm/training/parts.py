"""Tensors in the files of a folder that all processes of a run write together: each its own part, and none the whole.

A run of one process has one file of a kind, `weights.safetensors`; of several each has its own, such as
`weights-00001-of-00002.safetensors`. Each holds the rows that its process has of every tensor that is divided, in the
order of the processes; what is not divided is in the first file alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor

from graftlm.errors import CheckpointError, GraftError
from graftlm.families.tensors import save_tensors
from graftlm.files import atomic_folder, cannot_write
from graftlm.training.ranks import everyone, is_first, rank, rows_of, world

Value = TypeVar("Value")
Hashes = dict[str, str]
"""Name of a file -> its sha256."""


class Parts:
    """The tensors of one kind in a folder, read when they are asked for, by as many processes as there are now.

    Raises: CheckpointError for files that are missing or damaged.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        files = files_of(folder, kind)
        if not files:
            raise damaged(folder / f"{kind}.safetensors")
        self._held: dict[str, list[Any]] = {}
        for file in files:
            opened = _opened(file)
            for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                self._held.setdefault(name, []).append(opened.get_slice(name))

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Of the whole tensors, by name."""
        sizes = {name: [held.get_shape() for held in parts] for name, parts in self._held.items()}
        return {name: torch.Size([sum(s[0] for s in of), *of[0][1:]] if of[0] else ()) for name, of in sizes.items()}

    def whole(self, name: str) -> Tensor:
        """A whole tensor."""
        return torch.cat([part[:] for part in self._held[name]]) if self.shapes[name] else self._held[name][0][...]

    def like(self, name: str, other: Tensor) -> Tensor:
        """A tensor that is divided as `other` is, where that has its shape; else the whole one."""
        if not isinstance(other, DTensor) or other.shape != self.shapes[name]:
            return self.whole(name)
        start, stop = rows_of(other)
        found, at = [], 0
        for part in self._held[name]:
            rows = part.get_shape()[0]
            found.append(part[min(max(start - at, 0), rows) : min(max(stop - at, 0), rows)])
            at += rows
        mine = torch.cat(found).to(other.device)
        mesh, placements = other.device_mesh, other.placements
        return DTensor.from_local(mine, mesh, placements, shape=other.shape, stride=other.stride())


def own_parts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What this process writes of tensors: its rows of those that are divided, and in the first process all others."""
    return {
        name: tensor.to_local() if isinstance(tensor, DTensor) else tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, DTensor) or is_first()
    }


def files_of(folder: Path, kind: str) -> list[Path]:
    """The files of one kind, in the order of the processes that wrote them."""
    return sorted(folder.glob(f"{kind}*.safetensors"))


def write_together(
    path: Path, kinds: Mapping[str, Mapping[str, Tensor]], finish: Callable[[Path, Hashes], None] | None = None
) -> None:
    """Make the folder `path` of the tensors by kind that each process gives, in the place of what is there.

    It gets its name once every process has written its files and the first has called `finish` with it and the hashes
    of them all. Raises: GraftError in all processes where one cannot write, and nothing is left.
    """
    with ExitStack() as stack:

        def begin() -> Path:
            return stack.enter_context(atomic_folder(path, replace=True)) if is_first() else path

        def end() -> None:
            if finish is not None and is_first():
                finish(folder, hashes)

        hashes: Hashes = {}
        folder = _together(path, begin)[0]
        for written in _together(path, lambda: _write(folder, kinds)):
            hashes |= written
        _together(path, end)
        _together(path, stack.close)


def _write(folder: Path, kinds: Mapping[str, Mapping[str, Tensor]]) -> Hashes:
    suffix = "" if world() == 1 else f"-{rank() + 1:05d}-of-{world():05d}"
    written = {}
    for kind, tensors in kinds.items():
        if tensors:
            file = folder / f"{kind}{suffix}.safetensors"
            save_tensors(tensors, file)
            written[file.name] = sha256(file)
    return written


def _together(path: Path, work: Callable[[], Value]) -> list[Value]:
    """What the work of each process came to. Raises: GraftError in all of them where it failed in one."""
    value, error = None, None
    try:
        value = work()
    except OSError as failed:
        error = cannot_write(path, failed)
    except GraftError as failed:
        error = failed
    results = everyone((value, error and str(error)))
    if error is not None:
        raise error
    for _, message in results:
        if message is not None:
            raise GraftError(message)
    return [result for result, _ in results]


def sha256(file: Path) -> str:
    """Hash of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damaged(file: Path) -> CheckpointError:
    """The error to raise for a file of a checkpoint."""
    return CheckpointError(f"{file} is missing or damaged; remove {file.parent.parent} to start anew.")


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise damaged(file) from error
