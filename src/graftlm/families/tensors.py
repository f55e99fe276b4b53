"""A folder of safetensors files, checked as a whole and read tensor by tensor; nothing else is ever loaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from graftlm.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Names in the format -> dtypes, in the order in which a file holds them."""
BESIDE = {"I64": torch.int64, "U8": torch.uint8, "BOOL": torch.bool}
"""The same of what is no weight: positions and masks that old releases store."""


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()


class TensorFolder:
    """The weights of one checkpoint folder, in shards or in one file; headers are read at once, tensors on demand.

    Raises: CheckpointError for pickled weights, files that are missing, unreadable, damaged or truncated, an index that
    does not fit its shards, and dtypes that are not plain floats.
    """

    def __init__(self, folder: str | Path, single: str = SINGLE) -> None:
        self.folder = Path(folder)
        self.single = single
        index = self.folder / INDEX
        placed = _read_index(index) if os.path.isfile(index) else None
        files = [self._single_file()] if placed is None else self._shards(placed)
        found = {file.name: _infos(file) for file in files}
        if placed is not None:
            _check_index(index, placed, found)
        self.infos = {name: info for infos in found.values() for name, info in infos.items()}

    def check(self, expected: Mapping[str, tuple[int, ...]], ignored: Collection[str] = ()) -> None:
        """Raise CheckpointError that lists every tensor that is missing, unexpected or of another shape.

        Only those that are ignored may be whole numbers.
        """
        shown = {dtype: kind for kind, dtype in BESIDE.items()}
        for name, info in self.infos.items():
            if name not in ignored and info.dtype in shown:
                raise _quantised(info.file, name, shown[info.dtype])
        problems = [
            f"{name} is missing"
            if name not in self.infos
            else f"{name} has shape {list(self.infos[name].shape)} instead of {list(shape)}"
            for name, shape in expected.items()
            if name not in self.infos or self.infos[name].shape != shape
        ]
        problems += [
            f"{_shown(name)} is unexpected" for name in self.infos if name not in expected and name not in ignored
        ]
        if problems:
            raise CheckpointError(f"The weights in {self.folder} do not fit its config: {'; '.join(problems)}.")

    def read(self, name: str) -> torch.Tensor:
        """One tensor, as stored: a private map of its file, so that no two calls return the same memory."""
        with opened(self.infos[name].file) as shard:
            return shard.get_tensor(name)

    def _shards(self, placed: Mapping[str, str]) -> list[Path]:
        names = sorted(set(placed.values()))
        missing = [_shown(name) for name in names if not os.path.exists(self.folder / name)]
        if missing:
            raise CheckpointError(f"{self.folder} lacks the shards {', '.join(missing)}; fetch them again.")
        return [self.folder / name for name in names]

    def _single_file(self) -> Path:
        if os.path.exists(self.folder / self.single):
            return self.folder / self.single
        pickled = [p.name for pattern in PICKLES for p in sorted(self.folder.glob(pattern))]
        if pickled:
            raise CheckpointError(
                f"{self.folder} holds only pickled weights ({pickled[0]}), which can run code; "
                "save it as safetensors first."
            )
        raise CheckpointError(f"{self.folder} holds no {self.single} and no {INDEX}.")


def save_tensors(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Write one safetensors file. Raises: OSError when it cannot be written, a full disk included."""
    with disk_errors():
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


@contextmanager
def disk_errors() -> Iterator[None]:
    """Inside the block, what safetensors cannot write is an OSError, as it is for any other file."""
    try:
        yield
    except SafetensorError as error:
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def _read_index(path: Path) -> dict[str, str]:
    """Name of every tensor -> name of the shard in the same folder that holds it."""
    try:
        placed: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if any(Path(shard).name != shard or shard in ("", "..") for shard in placed.values()):
            raise ValueError("a shard lies outside the folder")
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); make it readable or fetch it again."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a valid index of shards; fetch it again.") from error
    return placed


def _check_index(index: Path, placed: Mapping[str, str], found: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    """Refuse shards that hold other tensors than the index says of them."""
    problems = [
        f"{_shown(name)} is not in {shard}, where the index places it"
        for name, shard in placed.items()
        if name not in found[shard]
    ]
    for shard, infos in found.items():
        for name in infos:
            if name not in placed:
                problems.append(f"{shard} holds {_shown(name)}, which the index does not name")
            elif placed[name] != shard:
                problems.append(f"{shard} holds {_shown(name)}, which the index places in {placed[name]}")
    if problems:
        raise CheckpointError(f"{index} does not fit its shards: {'; '.join(problems)}; fetch the folder again.")


def _infos(file: Path) -> dict[str, TensorInfo]:
    infos = {}
    with opened(file) as shard:
        for name in shard.keys():  # noqa: SIM118 - safe_open is no mapping
            part = shard.get_slice(name)
            dtype = (DTYPES | BESIDE).get(part.get_dtype())
            if dtype is None:
                raise _quantised(file, name, part.get_dtype())
            infos[name] = TensorInfo(file, tuple(part.get_shape()), dtype)
    return infos


def _quantised(file: Path, name: str, dtype: str) -> CheckpointError:
    return CheckpointError(
        f"{file} stores {_shown(name)} as {dtype}; quantised weights cannot be adapted, use the float checkpoint."
    )


def opened(file: Path) -> safe_open:
    """A safetensors file. Raises: CheckpointError for one that cannot be read or is damaged."""
    try:
        # safetensors says of any file that it may not open that there is none.
        file.open("rb").close()
        return safe_open(str(file), framework="pt")
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read ({error.strerror}); make it readable or fetch it again."
        ) from error
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file} is damaged or truncated ({reason}); fetch it again.") from error


def _shown(name: str) -> str:
    """A name out of a damaged file, on one line."""
    return name if name.isprintable() else repr(name)
