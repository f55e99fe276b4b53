"""The figures of the demo: `graftlm demo`, with its record kept.

python benchmarks/demo.py [--quick] [--out FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine

UNITS = {"loss": "nats per target token", "source_gain": "nats per target token", "bleu": "BLEU", "chrf": "chrF"}


def row(name: str, before: dict[str, float], tuned: dict[str, float]) -> dict[str, Any]:
    """One metric; a ratio above 1 is in favour of tuning, and a difference such as the source gain has none."""
    ratio = {"loss": (before["value"], tuned["value"])}.get(name, (tuned["value"], before["value"]))
    return {
        "case": f"e2e_nlg test {name}, tuned encoder on the frozen decoder",
        "unit": UNITS[name],
        "ours": tuned["value"],
        "interval": [tuned["low"], tuned["high"]],
        "peers": {"un-tuned graft": before["value"]},
        "ratio": None if name == "source_gain" else round(ratio[0] / ratio[1], 3),
    }


def main() -> None:
    """Run and print; --out also writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "demo"
        command = [str(Path(sys.executable).parent / "graftlm"), "demo", "--out", str(kept)]
        start = time.perf_counter()
        subprocess.run([*command, *(["--steps", "10", "--limit", "8"] if arguments.quick else [])], check=True)
        seconds = time.perf_counter() - start
        record: dict[str, Any] = json.loads((kept / "demo.json").read_text(encoding="utf-8"))
    for arm in ("before", "after"):
        del record[arm]["rows"]  # Texts and counts of every example; too long to commit.
    rows = [row(name, record["before"]["metrics"][name], tuned) for name, tuned in record["after"]["metrics"].items()]
    result = {"machine": machine(), "seconds": round(seconds, 1), "rows": rows, **record}
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    print(json.dumps({"machine": result["machine"], "seconds": result["seconds"], "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
