"""graftlm report: a page of what tuning and evaluation wrote, and one sentence for what it cannot be made of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Command, refused


def record(path: Path, **changed: object) -> Path:
    values = {
        "task": "toy", "split": "test", "n": 5, "model": "graft", "encoder": None, "samples": [],
        "metrics": {"bleu": {"value": 2.0, "low": 1.0, "high": 3.0}},
    }  # fmt: skip
    path.write_text(json.dumps(values | changed))
    return path


def test_the_records_of_tuning_and_evaluation_make_a_page(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    encoder, scores = tmp_path / "encoder", tmp_path / "scores.json"
    tuned = graftlm("tune", graft_folder, "--task", task_file, "--out", encoder, "--steps", 2, "--batch-size", 2)
    assert tuned.code == 0, tuned.err
    evaluated = graftlm("eval", graft_folder, "--task-encoder", encoder, "--task", task_file, "--out", scores)
    assert evaluated.code == 0, evaluated.err
    pages = []
    for name in ("one.html", "two.html"):
        made = graftlm("report", encoder, scores, "--out", tmp_path / name)
        assert made.code == 0, made.err
        pages.append((tmp_path / name).read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    run = json.loads((encoder / "task_encoder.json").read_text())["run"]
    bleu = json.loads(scores.read_text())["metrics"]["bleu"]
    shown = (f"{run['parameters']['trainable']:,}", f"{run['losses'][-1][1]:.3f}", f"{bleu['value']:.2f} (", "name[a]")
    for part in shown:
        assert part in pages[0]


def test_a_bridge_before_and_after_tuning(graftlm: Command, tiny_lm, task_file: Path, tmp_path: Path) -> None:
    graft, encoder, page = tmp_path / "graft", tmp_path / "encoder", tmp_path / "r.html"
    made = graftlm("adapt", tiny_lm("gemma2")[1], "--bridge", "linear", "--bridge-init", "gca", "--out", graft)
    assert made.code == 0, made.err
    tuned = graftlm("tune", graft, "--task", task_file, "--out", encoder, "--steps", 2, "--batch-size", 2)
    assert tuned.code == 0, tuned.err
    bridge = json.loads((encoder / "task_encoder.json").read_text())["run"]["bridge"]
    assert (bridge["kind"], bridge["states"]) == ("linear", [1, 2, 3])
    # Layer j begins with h_4 - j, of three states, or the nearest.
    assert bridge["before"] == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert all(0.5 < max(row) < 1 for row in bridge["after"])
    reported = graftlm("report", encoder, "--out", page)
    assert reported.code == 0, reported.err
    text = page.read_text(encoding="utf-8")
    assert "<h3>encoder, bridge linear</h3>" in text
    assert f"<td>{bridge['after'][0][2]:.1%}</td>" in text


def test_a_folder_without_a_record(graftlm: Command, tmp_path: Path) -> None:
    refused(graftlm("report", tmp_path, "--out", tmp_path / "r.html"), str(tmp_path), "holds no record")
    assert not list(tmp_path.iterdir())


def test_damaged_json(graftlm: Command, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text('{"task"')
    refused(graftlm("report", tmp_path, "--out", tmp_path / "r.html"), "scores.json", "not valid JSON")


def test_a_number_that_is_not_finite(graftlm: Command, tmp_path: Path) -> None:
    path = record(tmp_path / "s.json", metrics={"bleu": {"value": float("nan"), "low": 0, "high": 1}})
    refused(graftlm("report", path, "--out", tmp_path / "r.html"), "bleu.value", "finite number")


def test_a_place_that_cannot_be_written(graftlm: Command, tmp_path: Path) -> None:
    path = record(tmp_path / "s.json")
    refused(graftlm("report", path, "--out", tmp_path), "it is a folder")
    refused(graftlm("report", path, "--out", path / "r.html"), "is not a folder")
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        refused(graftlm("report", path, "--out", closed / "r.html"), "no permission")


def test_a_record_is_not_overwritten(graftlm: Command, tmp_path: Path) -> None:
    path = record(tmp_path / "s.json")
    before = path.read_bytes()
    refused(graftlm("report", path, "--out", path), "would overwrite")
    assert path.read_bytes() == before


def test_matplotlib_is_loaded_by_nothing_else() -> None:
    code = (
        "import sys; import graftlm.cli.main, graftlm.reports.run_report, graftlm.reports.svg, graftlm.cli.report; "
        "print('matplotlib' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


def test_without_matplotlib(graftlm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = record(tmp_path / "s.json")
    refused(graftlm("report", path, "--out", tmp_path / "r.html"), "pip install 'graftlm[report]'")
    assert not (tmp_path / "r.html").exists()
