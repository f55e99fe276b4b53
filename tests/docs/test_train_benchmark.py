"""The benchmark of training runs, and its committed figures are what the project promises and what the docs say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/train.json"
EVERY = {"case", "unit", "ours", "peers", "ratio"}
TIMED = [
    "equal",
    *(
        f"skewed, {name}, {kind} batches"
        for name in ("webnlg", "mtop", "scitldr")
        for kind in ("random", "length-grouped")
    ),
    "vocab-256k, everything trains",
    "vocab-256k, decoder frozen",
    "frozen, decoder frozen",
]


def rows(path: Path) -> dict[str, dict[str, Any]]:
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert set(result) == {"machine", "rows"}
    assert all(set(row) >= EVERY for row in result["rows"])
    return {row["case"]: row for row in result["rows"]}


@pytest.mark.parametrize("case", TIMED)
def test_the_table_is_what_was_measured(case: str) -> None:
    row = rows(RESULTS)[f"{case}, CPU time"]
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    for name, found in row["ratios"].items():
        low, high = found["quartiles"]
        assert f"| {case} | {name} | {found['median']:.2f} ({low:.2f} to {high:.2f}) |" in text


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "train.json"
    subprocess.run([sys.executable, ROOT / "benchmarks/train.py", "--quick", "--out", out], check=True)
    found = rows(out)
    assert {f"{case}, {what}" for case in TIMED for what in ("CPU time", "wall time")} < set(found)
    assert all(row["ours"] > 0 for case, row in found.items() if "memory" not in case)


@pytest.mark.slow
def test_an_unknown_case_is_named() -> None:
    command = [sys.executable, ROOT / "benchmarks/train.py", "--quick", "--case", "fast"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert "There is no case 'fast'; choose among equal, skewed, vocab-256k, frozen." in run.stderr
