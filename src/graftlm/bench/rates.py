"""How many operations a model asks for, and how many a device can do."""

from __future__ import annotations

import time

import torch
from torch import nn

from graftlm.model.cost import cost
from graftlm.model.modeling import GraftForConditionalGeneration

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bf16 operations per second by the maker's data sheet, by a part of the card's name."""
SIDE = {"cpu": 1024, "cuda": 8192}
TIMES = {"cpu": 5, "cuda": 50}


def flops(model: nn.Module, source: int, target: int) -> int:
    """Operations of the forward pass of one example of so many tokens."""
    assert isinstance(model, GraftForConditionalGeneration)
    found = cost(model.config, source, target)
    return found.per_source_token * source + found.per_target_token * target


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations per second of the product of two square matrices: the best of several on a CPU, else their mean."""
    side, times = SIDE[device], TIMES[device]
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    one @ other
    if device == "cpu":
        return 2 * side**3 / min(_cpu_seconds(one, other) for _ in range(times))
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        one @ other
    torch.cuda.synchronize()
    return 2 * side**3 * times / (time.perf_counter() - start)


def _cpu_seconds(one: torch.Tensor, other: torch.Tensor) -> float:
    start = time.process_time()
    one @ other
    return time.process_time() - start


def peak_rate() -> float | None:
    """What the maker says of the bf16 products of this machine's card; None for cards not listed, and for CPUs."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((rate for part, rate in PEAKS.items() if part in name), None)
