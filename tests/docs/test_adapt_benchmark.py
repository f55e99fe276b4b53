"""The benchmark of adapt runs, and its committed figures are what the project promises."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CASES = ("balanced, t5gemma", "balanced, lossless", "unbalanced, t5gemma")
UNITS = ("s", "x cp", "MB RssAnon", "MB VmHWM")


def figures(path: Path, unit: str) -> dict[str, float]:
    """Ours of every case in one unit."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert set(result) == {"machine", "rows"}
    assert all(set(row) == {"case", "unit", "ours", "peers", "ratio"} for row in result["rows"])
    assert {row["unit"] for row in result["rows"]} == set(UNITS)
    found = {row["case"]: row["ours"] for row in result["rows"] if row["unit"] == unit}
    assert [", ".join(case.split(", ")[:2]) for case in found] == list(CASES)
    return found


@pytest.mark.parametrize(("unit", "limit"), [("x cp", 3), ("MB RssAnon", 1500)])
def test_large_models_are_adapted_at_the_speed_of_copying(unit: str, limit: float) -> None:
    for path in (ROOT / "benchmarks/results").glob("adapt.json"):
        found = figures(path, unit)
        assert all(0 < value <= limit for value in found.values()), found
        assert all(float(case.split(", ")[2].removesuffix(" GB read")) > 6 for case in found)


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "adapt.json"
    subprocess.run(
        [sys.executable, ROOT / "benchmarks/adapt.py", "--quick", "--out", out, "--work", tmp_path], check=True
    )
    assert all(0 < value <= 1500 for value in figures(out, "MB RssAnon").values())
    assert [path.name for path in tmp_path.iterdir()] == ["adapt.json"]
