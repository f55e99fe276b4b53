"""The benchmark of training runs, and its committed figures are what the docs say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EVERY = {"case", "unit", "ours", "peers", "ratio"}
QUICK = [
    "equal",
    *(
        f"skewed, {task}, {kind} batches"
        for task in ("webnlg", "mtop", "scitldr")
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


def test_the_table_is_what_was_measured() -> None:
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    measured = rows(ROOT / "benchmarks/results/train.json")
    timed = {case.removesuffix(", CPU time"): row for case, row in measured.items() if case.endswith(", CPU time")}
    assert {"equal", "frozen, decoder frozen"} < set(timed)
    for case, row in timed.items():
        for name, found in row["ratios"].items():
            low, high = found["quartiles"]
            assert f"| {case} | {name} | {found['median']:.2f} ({low:.2f} to {high:.2f}) |" in text


def test_a_frozen_step_costs_no_more_than_stock_and_equal_lengths_are_no_slower() -> None:
    measured = rows(ROOT / "benchmarks/results/train.json")
    for case in ("equal, CPU time", "frozen, decoder frozen, CPU time"):
        assert measured[case]["ratio"] >= 1.0
    assert measured["frozen, decoder frozen, memory that steps add"]["ratio"] >= 1.0


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "train.json"
    subprocess.run([sys.executable, ROOT / "benchmarks/train.py", "--quick", "--out", out], check=True)
    found = rows(out)
    assert {f"{case}, {what}" for case in QUICK for what in ("CPU time", "wall time")} < set(found)
    assert all(row["ours"] > 0 for case, row in found.items() if "memory" not in case)


def test_an_unknown_case_is_named() -> None:
    command = [sys.executable, ROOT / "benchmarks/train.py", "--quick", "--case", "fast"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert "There is no case 'fast'; choose among equal, skewed, vocab-256k, frozen." in run.stderr
