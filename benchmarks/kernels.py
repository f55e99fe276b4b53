"""The kernels that training and inference choose, against torch's own: linear maps, attention, the loss.

    python benchmarks/kernels.py [--quick] [--out FILE]

Variants alternate in one process on one thread; the figures are medians in microseconds. Memory is the peak resident
size that a process of its own adds, in MB.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor

from graftlm.bench.machine import added_memory, machine, write
from graftlm.model.kernels import attend, linear
from graftlm.model.linear_cross_entropy import linear_cross_entropy

LINEAR = [
    (rows, *shape) for shape in ((2048, 512), (512, 2048), (704, 256), (32000, 512)) for rows in (1, 4, 8, 32, 256)
]
ATTENTION = [(4, 256, 256, None), (4, 1, 256, None), (4, 256, 256, 50.0)]
LOSS = (256, 512, 256_000)
QUICK_LOSS = (64, 64, 16_000)
"""Rows, width and vocabulary."""


def paired(ours: Callable[[], Any], peer: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Median microseconds of both, run in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 2):
        for kind, function in enumerate((ours, peer)):
            start = time.perf_counter()
            function()
            if run >= 2:
                times[kind].append((time.perf_counter() - start) * 1e6)
    return statistics.median(times[0]), statistics.median(times[1])


def row(case: str, ours: float, name: str, peer: float, unit: str = "us") -> dict[str, Any]:
    """One line of the result; a ratio above 1 is in our favour."""
    return {
        "case": case,
        "unit": unit,
        "ours": round(ours, 1),
        "peers": {name: round(peer, 1)},
        "ratio": round(peer / ours, 2),
    }


def linear_rows(runs: int) -> list[dict[str, Any]]:
    """fp32 inference: the seam against F.linear."""
    rows = []
    for count, wide, narrow in LINEAR:
        weight, x = torch.randn(wide, narrow), torch.randn(count, narrow)
        ours, peer = paired(lambda x=x, w=weight: linear(x, w, None), lambda x=x, w=weight: F.linear(x, w), runs)
        rows.append(row(f"linear fp32 {count}x{narrow} -> {wide}", ours, "F.linear", peer))
    return rows


def attention_rows(runs: int) -> list[dict[str, Any]]:
    """bf16 attention, 8 query and 4 key/value heads of width 64: the seam against torch's fused kernel or eager."""
    rows = []
    for batch, queries, keys, cap in ATTENTION:
        q = torch.randn(batch, 8, queries, 64, dtype=torch.bfloat16)
        k, v = (torch.randn(batch, 4, keys, 64, dtype=torch.bfloat16) for _ in range(2))
        mask = torch.ones(batch, 1, queries, keys, dtype=torch.bool)

        def peer(q: Any = q, k: Any = k, v: Any = v, mask: Any = mask, cap: Any = cap) -> Any:
            if cap is None:
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.125, enable_gqa=True)
            k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
            scores = cap * torch.tanh(q @ k.transpose(-1, -2) * 0.125 / cap)
            return torch.softmax(scores.masked_fill(~mask, float("-inf")), -1, dtype=torch.float32).to(v.dtype) @ v

        ours, theirs = paired(
            lambda q=q, k=k, v=v, mask=mask, cap=cap: attend(q, k, v, mask, scale=0.125, softcap=cap), peer, runs
        )
        name = "scaled_dot_product_attention" if cap is None else "eager with repeated heads"
        rows.append(row(f"attention bf16 {batch}x8x{queries}x{keys} softcap {cap}", ours, name, theirs))
    return rows


def loss_of(ours: bool, shape: tuple[int, int, int], frozen: bool) -> Callable[[], None]:
    """Forward and backward of head and loss in fp32; the states always take a gradient."""
    torch.manual_seed(0)
    count, width, vocabulary = shape
    states = torch.randn(count, width, requires_grad=True)
    weight = (torch.randn(vocabulary, width) / width**0.5).requires_grad_(not frozen)
    labels = torch.randint(vocabulary, (count,))
    wanted: list[Tensor] = [states] if frozen else [states, weight]

    def step() -> None:
        if ours:
            loss = linear_cross_entropy(states, weight, None, labels).total
        else:
            loss = F.cross_entropy(F.linear(states, weight).float(), labels, reduction="sum")
        torch.autograd.grad(loss, wanted)

    return step


def loss_memory(ours: bool, shape: tuple[int, int, int], frozen: bool) -> float:
    """MB that one step adds; to be called in a fresh process."""
    torch.set_num_threads(1)
    loss_of(ours, QUICK_LOSS, frozen)()
    return added_memory(loss_of(ours, shape, frozen))


def loss_rows(runs: int, shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Head and loss, a few rows at a time against all logits at once."""
    rows = []
    for frozen in (True, False):
        case = f"loss fp32 {shape[0]}x{shape[1]} -> {shape[2]}, head {'frozen' if frozen else 'trains'}"
        times = paired(loss_of(True, shape, frozen), loss_of(False, shape, frozen), runs)
        memory = []
        for ours in (True, False):
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                memory.append(pool.submit(loss_memory, ours, shape, frozen).result())
        rows.append(row(f"{case}, time", times[0], "F.cross_entropy", times[1]))
        rows.append(row(f"{case}, memory added", memory[0], "F.cross_entropy", memory[1], "MB"))
    return rows


def main() -> None:
    """Run and print; --out also writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = 7 if arguments.quick else 41
    with torch.no_grad():
        rows = linear_rows(runs) + attention_rows(runs)
    rows += loss_rows(3, QUICK_LOSS) if arguments.quick else loss_rows(7, LOSS)
    write({"machine": machine(), "rows": rows}, arguments.out)


if __name__ == "__main__":
    main()
