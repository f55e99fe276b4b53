"""How long the demo takes, and whether its graft is the language model: `graftlm demo`, with its record kept.

python benchmarks/demo.py [--quick] [--out FILE]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from graftlm.bench.machine import machine, write


def run(*options: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole demo, and its record."""
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "demo"
        command = [str(Path(sys.executable).parent / "graftlm"), "demo", "--out", str(kept), *options]
        start = time.perf_counter()
        subprocess.run(command, check=True, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
        seconds = time.perf_counter() - start
        return seconds, json.loads((kept / "demo.json").read_text(encoding="utf-8"))


def row(case: str, seconds: float) -> dict[str, Any]:
    """One line of the result; nothing else does the same, so there is no peer."""
    return {"case": case, "unit": "s", "ours": round(seconds, 1), "peers": {}, "ratio": None}


def main() -> None:
    """Run and print; --out also writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seconds, record = run("--quick")
    rows = [row("graftlm demo --quick", seconds)]
    if not arguments.quick:
        seconds, record = run()
        rows.append(row("graftlm demo", seconds))
        rows += [
            row(f"tuning {task} {name}", found["run"]["seconds"])
            for task, arms in record["live"].items()
            for name, found in arms.items()
            if found["run"] is not None
        ]
    write({"machine": machine(), "rows": rows, "check": record["check"]}, arguments.out)


if __name__ == "__main__":
    main()
