"""The processes of one run, as torchrun or accelerate launch start them; a run of one process has rank 0 alone."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, Shard


def world() -> int:
    """Processes of this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def is_first() -> bool:
    """This process writes and speaks for all."""
    return rank() == 0


def wait() -> None:
    """Until every process is here."""
    if distributed.is_initialized():
        distributed.barrier()


def any_of_them(true: bool, device: torch.device) -> bool:
    """It is true in at least one process."""
    if not distributed.is_initialized():
        return true
    flag = torch.tensor(int(true), device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag.item())


def first_says(value: Any) -> Any:
    """The value of the first process."""
    if not distributed.is_initialized():
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def everyone(value: Any) -> list[Any]:
    """The value of each process, in their order."""
    if not distributed.is_initialized():
        return [value]
    values = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process holds a part, put together in main memory; any other as it is."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def rows_of(tensor: DTensor) -> tuple[int, int]:
    """Where the rows of a divided tensor that this process has begin and end: as many in each, fewer in the last."""
    assert tensor.placements == (Shard(0),)
    rows = -(-tensor.shape[0] // tensor.device_mesh.size())
    start = min(tensor.device_mesh.get_local_rank() * rows, tensor.shape[0])
    return start, min(start + rows, tensor.shape[0])
