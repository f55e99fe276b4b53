"""A folder of safetensors files, read tensor by tensor and written shard by shard; nothing else is ever loaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
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
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Those of weights, and those of the positions and masks that old releases store beside them."""


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

    Raises: CheckpointError for pickled weights, missing or truncated shards, and dtypes that are not plain floats.
    """

    def __init__(self, folder: str | Path, single: str = SINGLE) -> None:
        self.folder = Path(folder)
        self.single = single
        self.infos: dict[str, TensorInfo] = {}
        for file in self._files():
            with _opened(file) as shard:
                for name in shard.keys():  # noqa: SIM118 - safe_open is no mapping
                    part = shard.get_slice(name)
                    dtype = DTYPES.get(part.get_dtype())
                    if dtype is None:
                        raise quantised(file, name, part.get_dtype())
                    self.infos[name] = TensorInfo(file, tuple(part.get_shape()), dtype)

    def check(self, expected: Mapping[str, tuple[int, ...]], ignored: Collection[str] = ()) -> None:
        """Raise CheckpointError that lists every tensor that is missing, unexpected or of another shape.

        None but those that are ignored may be whole numbers.
        """
        for name, info in self.infos.items():
            if name not in ignored and not info.dtype.is_floating_point:
                raise quantised(info.file, name, str(info.dtype).removeprefix("torch."))
        problems = [
            f"{name} is missing"
            if name not in self.infos
            else f"{name} has shape {list(self.infos[name].shape)} instead of {list(shape)}"
            for name, shape in expected.items()
            if name not in self.infos or self.infos[name].shape != shape
        ]
        problems += [f"{name} is unexpected" for name in self.infos if name not in expected and name not in ignored]
        if problems:
            raise CheckpointError(f"The weights in {self.folder} do not fit its config: {'; '.join(problems)}.")

    def read(self, name: str) -> torch.Tensor:
        """One tensor, as stored."""
        with _opened(self.infos[name].file) as shard:
            return shard.get_tensor(name)

    def _files(self) -> list[Path]:
        index = self.folder / INDEX
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
                if any(Path(name).name != name for name in names):
                    raise ValueError("a shard lies outside the folder")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(f"{index} is not a valid index of shards; fetch it again.") from error
            missing = [name for name in names if not (self.folder / name).is_file()]
            if missing:
                raise CheckpointError(f"{self.folder} lacks the shards {', '.join(missing)}; fetch them again.")
            return [self.folder / name for name in names]
        if (self.folder / self.single).is_file():
            return [self.folder / self.single]
        pickled = [p.name for pattern in PICKLES for p in sorted(self.folder.glob(pattern))]
        if pickled:
            raise CheckpointError(
                f"{self.folder} holds only pickled weights ({pickled[0]}), which can run code; "
                "save it as safetensors first."
            )
        raise CheckpointError(f"{self.folder} holds no {self.single} and no {INDEX}.")


def quantised(file: Path, name: str, dtype: str) -> CheckpointError:
    """The error for a weight that is no plain float."""
    return CheckpointError(
        f"{file} stores {name} as {dtype}; quantised weights cannot be adapted, use the float checkpoint."
    )


def write_shards(
    folder: Path, sizes: Mapping[str, int], tensors: Iterable[tuple[str, torch.Tensor]], shard_bytes: int
) -> None:
    """Write tensors in the order in which they come, keeping one shard in memory.

    `sizes` are the bytes of each tensor in that order. Files are named as transformers names them.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    stream = iter(tensors)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors(dict(_take(stream, names)), folder / file)
        weight_map.update(dict.fromkeys(names, file))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


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


def _take(stream: Iterator[tuple[str, torch.Tensor]], names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for expected in names:
        name, tensor = next(stream)
        assert name == expected
        # Two names for one storage (a copied sub-layer) are two tensors on disk.
        yield name, tensor.clone() if not tensor.is_contiguous() else tensor


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or truncated ({error}); fetch it again.") from error
