"""The benchmark of making batches runs, and the docs say what it measured."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def times(path: Path) -> list[float]:
    """Milliseconds of each case."""
    return [row["ours"] for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def test_the_docs_say_what_was_measured() -> None:
    found = times(ROOT / "benchmarks/results/batches.json")
    text = " ".join((ROOT / "docs/scaling.md").read_text(encoding="utf-8").split())
    assert f"takes {min(found):.0f} to {max(found):.0f} ms of one core" in text


def test_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "batches.json"
    subprocess.run([sys.executable, ROOT / "benchmarks/batches.py", "--quick", "--out", out], check=True)
    assert min(times(out)) > 0
