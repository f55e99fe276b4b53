"""The benchmark of the frozen step runs, and its committed figures are what the project promises."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def ratios(path: Path) -> dict[str, float]:
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert set(result) == {"machine", "rows"}
    assert all(set(row) == {"case", "unit", "ours", "peers", "ratio"} for row in result["rows"])
    return {row["case"]: row["ratio"] for row in result["rows"]}


def test_the_frozen_step_costs_no_more_than_stock() -> None:
    found = ratios(ROOT / "benchmarks/results/frozen.json")
    for what in ("step time", "memory that steps add"):
        assert found[f"{what}, bf16, decoder frozen"] >= 1.0


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "frozen.json"
    subprocess.run([sys.executable, ROOT / "benchmarks/frozen.py", "--quick", "--out", out], check=True)
    assert len(ratios(out)) == 2 * (2 + 1)
