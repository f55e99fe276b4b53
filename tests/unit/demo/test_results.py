"""Means over seeds, the shipped summaries, and what the demo says of them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from graftlm.demo.arms import ARMS, TASKS
from graftlm.demo.results import committed, summarise
from graftlm.demo.verdict import verdict

ROOT = Path(__file__).parents[3]


def row(value: float, seed: int = 0) -> dict[str, Any]:
    metric = {"value": value, "low": value - 1, "high": value + 2}
    return {"task": "t", "arm": "a", "seed": seed, "parameters": 5, "bytes": 20, "metrics": {"loss": metric}}


def test_one_seed_keeps_its_interval() -> None:
    assert summarise([row(3.0)])["t"]["a"]["metrics"]["loss"] == {"value": 3.0, "low": 2.0, "high": 5.0}


def test_seeds_give_a_student_interval() -> None:
    summary = summarise([row(value, seed) for seed, value in enumerate((1.0, 2.0, 3.0))])["t"]["a"]
    assert summary["seeds"] == 3
    # 4.303 · 1 / √3
    assert summary["metrics"]["loss"] == pytest.approx({"value": 2.0, "low": 2 - 2.4843, "high": 2 + 2.4843}, abs=1e-3)


def test_the_shipped_summaries_are_those_of_the_committed_runs() -> None:
    rows = json.loads((ROOT / "benchmarks/results/arms.json").read_text(encoding="utf-8"))["rows"]
    assert committed() == json.loads(json.dumps(summarise(rows)))
    for task in TASKS:
        assert set(committed()[task]) == set(ARMS)
        for name, summary in committed()[task].items():
            assert summary["seeds"] == (1 if ARMS[name].settings is None else 3)


def test_the_verdict_says_what_fails() -> None:
    results = copy.deepcopy(committed()["e2e_nlg"])
    results["frozen"]["metrics"]["loss"]["value"] = 1.0
    results["frozen"]["metrics"]["source_gain"] = {"value": 1.0, "low": 0.5, "high": 1.5}
    results["frozen-shuffled"]["metrics"]["loss"]["value"] = 2.0
    assert "reads the tuned encoder: loss 1.00" in verdict("e2e_nlg", results)
    results["frozen"]["metrics"]["source_gain"]["low"] = -0.1
    assert "does not do at this scale: its source gain" in verdict("e2e_nlg", results)
    results["frozen-shuffled"]["metrics"]["loss"]["value"] = 0.5
    assert "shuffled sources; its source gain" in verdict("e2e_nlg", results)
