"""Training a graft against training the same T5Gemma with stock transformers: what `graftlm bench train` measures.

    python benchmarks/train.py [--quick] [--out FILE]

See graftlm.bench.train for what is measured, and how.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from graftlm.bench.machine import write
from graftlm.bench.train import measure


def main() -> None:
    """Run and print; --out also writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write(measure(arguments.quick, lambda text: print(text, file=sys.stderr, flush=True)), arguments.out)


if __name__ == "__main__":
    main()
