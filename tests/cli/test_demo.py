"""The demo, cut short: every step runs, and what it claims of the decoder and of serving holds."""

import json
from pathlib import Path

import pytest

from conftest import Command
from graftlm.demo.arms import LIVE, TASKS


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftlm.cli.demo.QUICK_STEPS", 2)
    monkeypatch.setattr("graftlm.cli.demo.QUICK_LIMIT", 2)


def test_everything_is_kept_in_a_folder(graftlm: Command, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    run = graftlm("demo", "--quick", "--out", out)
    assert run.code == 0, run.err
    for words in ("Largest logit difference", "source_gain", "6 of 6 targets", "--quick"):
        assert words in run.out
    record = json.loads((out / "demo.json").read_text())
    assert record["check"]["logit_difference"] < 1e-4
    assert record["check"]["same_greedy"] == record["check"]["examples"]
    assert record["check"]["same_decoder_tensors"] == record["check"]["decoder_tensors"] > 0
    assert [set(record["live"]), set(record["results"])] == [set(TASKS)] * 2
    for task in TASKS:
        assert set(record["live"][task]) == set(LIVE)
        assert set(record["results"][task]) == set(LIVE)
        assert (out / f"{task}-frozen" / "README.md").is_file()
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 5
    for words in ("Task e2e_nlg", "Task snips", "2 encoder–decoders", "so few updates", "bit for bit"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_only_the_report_is_kept_without_a_folder(
    graftlm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert graftlm("demo", "--quick").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["graftlm-demo.html"]


def test_options_that_contradict_each_other(graftlm: Command) -> None:
    run = graftlm("demo", "--quick", "--full")
    assert run.code == 2
    assert "contradict" in run.err
