"""The README's tables of arms are the committed runs, and what it says of them holds."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from graftlm.demo.arms import TASKS
from graftlm.demo.results import committed

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/arms.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("arms", ROOT / "benchmarks/arms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", TASKS)
def test_every_line_of_the_table_is_in_the_readme(arms: ModuleType, task: str) -> None:
    for line in arms.table(task, committed()[task]):
        assert line in README


@pytest.mark.parametrize("task", TASKS)
def test_the_frozen_decoder_reads_the_encoder(task: str) -> None:
    """What the project promises: better than un-tuned and than the control, and a source gain above 0 over seeds."""
    metrics = {name: summary["metrics"] for name, summary in committed()[task].items()}
    assert metrics["frozen"]["loss"]["high"] < metrics["un-tuned"]["loss"]["low"]
    assert metrics["frozen"]["loss"]["high"] < metrics["frozen-shuffled"]["loss"]["low"]
    assert metrics["frozen"]["source_gain"]["low"] > 0


def test_all_arms_had_the_same_budget() -> None:
    rows = json.loads((ROOT / "benchmarks/results/arms.json").read_text(encoding="utf-8"))["rows"]
    budgets = {tuple(row["settings"][key] for key in ("steps", "batch_size")) for row in rows if "settings" in row}
    assert len(budgets) == 1


def test_what_is_said_of_the_demo_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks/results/demo.json").read_text(encoding="utf-8"))
    check, seconds = result["check"], {row["case"]: row["ours"] for row in result["rows"]}
    assert f"at most {check['logit_difference']:.1e} over {check['target_tokens']} target tokens" in README
    assert f"{check['same_greedy']} of {check['examples']} sources" in README
    assert f"{check['same_decoder_tensors']} of {check['decoder_tensors']}" in README
    assert f"takes {seconds['graftlm demo']:.0f} s" in README
    assert f"`--quick` {seconds['graftlm demo --quick']:.0f} s" in README
    assert seconds["graftlm demo"] < 8 * 60
    assert seconds["graftlm demo --quick"] < 2 * 60
    assert all(value <= 90 for case, value in seconds.items() if case.startswith("tuning"))
