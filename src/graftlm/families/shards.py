"""Safetensors shards written tensor by tensor: each goes from its own memory to its place in the file.

A shard has the very bytes that safetensors' own writer makes, which needs all tensors of a file at once.
Source: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from graftlm.families.tensors import DTYPES, INDEX, SINGLE

NAMES = {dtype: name for name, dtype in DTYPES.items()}
ORDER = list(NAMES)
ALIGNMENT = 8
"""Bytes that the data's offset in the file is a multiple of."""


class Header(Protocol):
    """What is known of a tensor before it is made."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> torch.dtype:
        """Its type, one of DTYPES."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""


def write_shards(
    folder: Path, headers: Mapping[str, Header], tensors: Iterable[tuple[str, torch.Tensor]], shard_bytes: int
) -> None:
    """Write tensors as they come, holding one at a time, into shards of at most `shard_bytes` each.

    `tensors` are those of `headers` in the same order; a tensor that is larger gets a shard of its own. Files are named
    as transformers names them. Raises: OSError when they cannot be written, a full disk included.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, header in headers.items():
        if shards[-1] and filled + header.nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += header.nbytes
    stream = iter(tensors)
    placed: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / file, {name: headers[name] for name in names}, stream)
        placed.update(dict.fromkeys(names, file))
    if len(shards) > 1:
        total = sum(header.nbytes for header in headers.values())
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_shard(file: Path, headers: Mapping[str, Header], stream: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Take the tensors of `headers` from the stream and put each where the file has its place for it."""
    text, starts = _head(headers)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for expected, header in headers.items():
            name, tensor = next(stream)
            assert (name, tuple(tensor.shape), tensor.dtype) == (expected, header.shape, header.dtype)
            out.seek(8 + len(text) + starts[name])
            out.write(tensor.contiguous().flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
            # The next one may be as large, and is made before its name is bound.
            del tensor


def _head(headers: Mapping[str, Header]) -> tuple[bytes, dict[str, int]]:
    """The header's JSON, padded, and where in the data each tensor begins: the widest types first, then by name."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts: dict[str, int] = {}
    end = 0
    for name in sorted(headers, key=lambda name: (ORDER.index(headers[name].dtype), name)):
        header = headers[name]
        starts[name], end = end, end + header.nbytes
        described[name] = {
            "dtype": NAMES[header.dtype],
            "shape": list(header.shape),
            "data_offsets": [starts[name], end],
        }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % ALIGNMENT), starts
