"""Training an encoder on a frozen decoder, against stock transformers doing the same to the same T5Gemma.

    python benchmarks/frozen.py [--quick] [--out FILE]

The graft of recipe t5gemma and transformers' T5GemmaForConditionalGeneration hold the same weights, and their losses
agree before anything is timed. A step is forward, backward, fused AdamW on what trains, and zero_grad; decoder and head
take no gradients where the case says frozen. Stock runs eager attention, the only one that it supports here.

Time: both sides, frozen and not, take turns in one process on one thread; milliseconds, medians. Memory: the peak
resident size over two steps less the size before the first, in MB, so activations, gradients and optimizer state; each
side has a fresh process, which has loaded its kernels on a tiny batch before.
"""

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from graftlm.bench.machine import machine, write
from graftlm.bench.pair import OURS, STOCK, Case, Size, batch, both, memories, stepper

QUICK = Size(layers=2, width=128, vocabulary=2_000, rows=2, tokens=16, runs=2)
CASES = [
    Case(torch.bfloat16),
    Case(torch.bfloat16, frozen=False),
    Case(torch.bfloat16, softcaps=True),
    Case(torch.float32),
    Case(torch.float32, frozen=False),
]


def times(size: Size, cases: list[Case]) -> dict[Case, dict[str, float]]:
    """Median milliseconds of a step of both sides in cases of one arithmetic, all run in turn."""
    given = batch(size.rows, size.tokens, size.vocabulary)
    steps: dict[tuple[Case, str], Callable[[], None]] = {}
    for case in cases:
        steps |= {(case, side): stepper(model, given) for side, model in both(size, case).items()}
    found: dict[tuple[Case, str], list[float]] = {key: [] for key in steps}
    for run in range(size.runs + 1):
        for key in list(steps)[:: -1 if run % 2 else 1]:
            start = time.perf_counter()
            steps[key]()
            if run:
                found[key].append((time.perf_counter() - start) * 1e3)
    return {case: {side: statistics.median(found[case, side]) for side in (OURS, STOCK)} for case in cases}


def row(case: str, unit: str, found: dict[str, float]) -> dict[str, Any]:
    """One line of the result; a ratio above 1 is in our favour."""
    ours, stock = found[OURS], found[STOCK]
    line = {"case": case, "unit": unit, "ours": round(ours, 3), "peers": {STOCK: round(stock, 3)}}
    return line | {"ratio": round(stock / ours, 3)}


def rows(size: Size, cases: list[Case]) -> list[dict[str, Any]]:
    """Time and memory of every case; where one comes frozen and not, also the share that is left of both."""
    taken: dict[Case, dict[str, float]] = {}
    for arithmetic in dict.fromkeys(case.arithmetic for case in cases):
        taken |= times(size, [case for case in cases if case.arithmetic == arithmetic])
    added = {case: memories(size, case) for case in cases}
    lines = []
    for what, unit, figures in (("step time", "ms", taken), ("memory that steps add", "MB", added)):
        lines += [row(f"{what}, {case.name}", unit, found) for case, found in figures.items()]
        for case in cases:
            whole = dataclasses.replace(case, frozen=False)
            if case.frozen and whole in figures:
                share = {side: figures[case][side] / figures[whole][side] for side in (OURS, STOCK)}
                lines.append(row(f"{what}, {case.arithmetic}, frozen / everything trains", "share", share))
    return lines


def main() -> None:
    """Run and print; --out also writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if arguments.quick else Size()
    result = {"machine": machine(), "rows": rows(size, CASES[:2] if arguments.quick else CASES)}
    write(result, arguments.out)


if __name__ == "__main__":
    main()
