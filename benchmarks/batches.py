"""How long a batch of text takes to make, which workers do while the model computes.

    python benchmarks/batches.py [--quick] [--out FILE]

Batches of 32 examples that objectives make of random documents of 4,000 tokens, with sources and targets of equal
limits, padded and not packed. Figures are milliseconds of CPU time of one thread, medians over batches; there is no
peer.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from graftlm.bench.machine import machine, write
from graftlm.data.texts import Documents
from graftlm.objectives.frame import Frame
from graftlm.objectives.registry import document_objective
from graftlm.objectives.text_examples import TextExamples
from graftlm.training.batches import Batches

SIZE = 32
DOCUMENT = 4_000
OBJECTIVES: tuple[dict[str, Any], ...] = (
    {"name": "prefix_lm"},
    {"name": "span_corruption"},
    {"name": "ul2", "denoisers": "t5gemma2"},
)


def row(values: dict[str, Any], length: int, batches: int) -> dict[str, Any]:
    """One line of the result: an objective at a length of sources and targets."""
    ids = np.random.default_rng(0).integers(3, 30_000, 500 * DOCUMENT).astype(np.int32)
    documents = Documents(ids, np.arange(0, len(ids) + 1, DOCUMENT))
    ends: dict[str, Any] = {"source_start": (1,), "target_end": (2,), "sentinels": tuple(range(40_000, 42_000))}
    frame = Frame(source_length=length, target_length=length, **ends)
    examples = TextExamples(documents, document_objective(values), frame, seed=0)
    made = Batches([list(examples[i * SIZE : (i + 1) * SIZE]) for i in range(batches)], packing=False, parts=1)
    took = []
    for number in range(batches):
        start = time.thread_time()
        made[number]
        took.append(time.thread_time() - start)
    ours = round(statistics.median(took) * 1e3, 2)
    return {
        "case": f"{values['name']}, {length} tokens",
        "unit": "ms per batch",
        "ours": ours,
        "peers": {},
        "ratio": None,
    }


def main() -> None:
    """Run and print; --out also writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lengths, batches = ((64,), 2) if arguments.quick else ((256, 512, 2048), 7)
    lines = [row(values, length, batches) for values in OBJECTIVES for length in lengths]
    write({"machine": machine(), "rows": lines}, arguments.out)


if __name__ == "__main__":
    main()
