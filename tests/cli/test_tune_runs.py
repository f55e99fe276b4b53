"""Tuning from the command line: mixtures, interruption, resuming."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from conftest import Check, Command, refused
from updates import press_ctrl_c


@pytest.fixture
def other_task(tmp_path: Path) -> Path:
    """A second task, with a validation split and a template of its own."""
    rows = [{"source": f"colour {c}", "target": f"{c} is red"} for c in "ijklmnopqrstuvwxyz"]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "other.yaml"
    path.write_text(
        "name: other\ntrain: other.jsonl\nvalidation: other.jsonl\nsource_template: 'say {source}'\nmax_new_tokens: 5\n"
    )
    return path


def manifest(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "task_encoder.json").read_text())
    return value


def test_a_mixture_makes_one_encoder_for_its_tasks(
    graftlm: Command, graft_folder: Path, task_file: Path, other_task: Path, tmp_path: Path
) -> None:
    out = tmp_path / "both"
    run = graftlm("tune", graft_folder, "--task", task_file, "--task", other_task, "--out", out, "--steps", 4)
    assert run.code == 0, run.err
    assert re.search(r"tiny: 8 examples, 40.0% of the draws", run.err)
    assert "best validation loss" in run.out
    told = r"update 4 of 4 · validation loss [\d.]+ · source gain -?[\d.]+ · [\d,]+ tokens/s · 0:00 left"
    assert re.search(told, run.err)
    assert re.search(r"encoder +│ +\d+ │ +[\d,]+ │ +yes", run.err)
    assert re.search(r"decoder +│ +\d+ │ +[\d,]+ │ +no", run.err)
    written = manifest(out)
    assert written["name"] == "tiny+other"
    assert [task["name"] for task in written["tasks"]] == ["tiny", "other"]
    assert written["run"]["mixture"]["other"] == {"examples": 18, "rate": pytest.approx(0.6)}
    assert set(written["run"]["data_sha256"]["other"]) == {"train", "validation"}
    assert list(written["run"]["validation"][-1]["tasks"]) == ["other"]
    assert not (tmp_path / "both.run").exists()

    command = ("generate", graft_folder, "name[a]", "--task-encoder", out)
    assert graftlm(*command, "--task", "other").code == 0
    refused(graftlm(*command), "choose one with --task: tiny, other")
    assert "it holds tiny, other" in graftlm(*command, "--task", "third").err
    assert "give one with --task-encoder" in graftlm("generate", graft_folder, "a", "--task", "other").err
    scores = tmp_path / "scores.json"
    run = graftlm("eval", graft_folder, "--task-encoder", out, "--task", task_file, "--out", scores)
    assert run.code == 0, run.err


def test_explicit_rates(
    graftlm: Command, graft_folder: Path, task_file: Path, other_task: Path, tmp_path: Path
) -> None:
    run = graftlm(
        "tune", graft_folder, "--task", task_file, "--task", other_task, "--out", tmp_path / "e", "--steps", 1,
        "--rates", "tiny=3,other=1",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert manifest(tmp_path / "e")["run"]["mixture"]["tiny"]["rate"] == 0.75


def test_ctrl_c_leaves_an_encoder_and_the_run_goes_on(
    graftlm: Command, graft_folder: Path, other_task: Path, tmp_path: Path
) -> None:
    command = ("tune", graft_folder, "--task", other_task, "--steps", 8, "--eval-every", 3, "--batch-size", 4)
    assert graftlm(*command, "--out", tmp_path / "whole").code == 0
    out = tmp_path / "e"
    with pytest.MonkeyPatch.context() as patch:
        press_ctrl_c(patch, 5)
        stopped = graftlm(*command, "--out", out)
    assert stopped.code == 130, stopped.err
    assert "5 updates" in stopped.out
    assert "the weights are those of update 3, the best validation loss" in stopped.out
    assert "--resume goes on from" in stopped.err
    assert manifest(out)["run"]["interrupted_at"] == 5
    assert graftlm("generate", graft_folder, "a", "--task-encoder", out).code == 0
    assert "unfinished run of 5 updates" in graftlm(*command, "--out", out).err

    resumed = graftlm(*command, "--out", out, "--resume")
    assert resumed.code == 0, resumed.err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "e"))) == ["e"]
    whole, found = manifest(tmp_path / "whole")["run"], manifest(out)["run"]
    assert found["resumed_at"] == [5]
    assert (found["losses"], found["validation"]) == (whole["losses"], whole["validation"])
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(tensor.equal(tensors[name]) for name, tensor in load_file(out / "model.safetensors").items())

    refused(graftlm(*command, "--out", out, "--resume"), "already exists")


def test_resume_without_a_checkpoint_begins(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    run = graftlm("tune", graft_folder, "--task", task_file, "--out", tmp_path / "e", "--steps", 1, "--resume")
    assert run.code == 0
    assert "starting from the beginning" in run.err
    assert "those of the last update" in run.out


def test_a_plan_that_trains_some_of_the_decoder_writes_a_whole_model(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "whole"
    run = graftlm(
        "tune", graft_folder, "--task", task_file, "--out", out, "--steps", 2,
        "--freeze", "*,!decoder.layers.0.mlp.*",
    )  # fmt: skip
    assert run.code == 0, run.err
    before, after = (load_file(folder / "model.safetensors") for folder in (graft_folder, out))
    # The encoder, which shared the decoder's weights before, now holds its own copy of them.
    changed = {name for name, x in after.items() if not x.equal(before[name.replace("encoder.", "decoder.")])}
    assert changed
    assert any(name.startswith("encoder.layers.0.mlp.") for name in after)
    assert all(name.startswith("decoder.layers.0.mlp.") for name in changed)
    record = json.loads((out / "run.json").read_text())
    assert {row["group"]: row["trains"] for row in record["freeze_plan"] if row["trains"]} == {"decoder": True}


def test_what_is_not_of_the_run_is_never_deleted(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    tune = ("tune", graft_folder, "--task", task_file, "--steps", 2)
    notes = tmp_path / "mine.run" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("precious")
    refused(graftlm(*tune, "--out", tmp_path / "mine"), "notes.txt, but is for checkpoints only")
    assert notes.read_text() == "precious"
    (tmp_path / "f.run").write_text("")
    assert "f.run is a file" in graftlm(*tune, "--out", tmp_path / "f").err


def test_the_current_folder_is_no_output(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out, words in ((".", "not empty"), ("/", "no name for a new folder")):
        refused(graftlm("tune", graft_folder, "--task", task_file, "--out", out, "--steps", 2), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rates", "tiny=1,tiny=2"], "tiny twice"),
        (["--temperature", 3], "--temperature belongs to --rates temperature"),
    ],
)
def test_options_that_contradict_each_other(refuses_to_tune: Check, options: list, words: str) -> None:
    refuses_to_tune(options, words)


def test_going_on_does_not_replace_what_others_put_there(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    (tmp_path / "e.run" / "step-00000002").mkdir(parents=True)
    out.mkdir()
    (out / "task_encoder.json").write_text('{"run": {"interrupted_at": 2}}')
    (out / "scores.json").write_text("{}")
    tune = ("tune", graft_folder, "--task", task_file, "--out", out, "--resume")
    refused(graftlm(*tune), "scores.json, which going on would replace")
    assert (out / "scores.json").exists()
