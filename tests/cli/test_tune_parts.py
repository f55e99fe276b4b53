"""What `graftlm tune` can train besides a whole encoder, and that everything else reads the result."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Check, Command
from updates import press_ctrl_c


def tune(graftlm: Command, graft: Path, task: Path, out: Path, *options: object) -> dict[str, Any]:
    run = graftlm("tune", graft, "--task", task, "--out", out, "--steps", 2, *options)
    assert run.code == 0, run.err
    name = "task_encoder.json" if (out / "task_encoder.json").exists() else "run.json"
    value: dict[str, Any] = json.loads((out / name).read_text())
    return value


SIDES = {"encoder_adapter", "decoder_adapter"}


@pytest.mark.parametrize(
    ("options", "trains", "files"),
    [
        (("--lora", 2), {"encoder_adapter"}, {"encoder_adapter"}),
        (
            ("--lora", 2, "--decoder-adapter", "bias"),
            {"encoder_adapter", "decoder_adapter"},
            {"encoder_adapter", "decoder_adapter"},
        ),
        (
            ("--decoder-adapter", "lora", "--adapter-rank", 3),
            {"encoder", "decoder_adapter"},
            {"decoder_adapter", "model.safetensors"},
        ),
        (("--decoder-adapter", "ia3", "--freeze", "decoder,encoder"), {"decoder_adapter"}, {"decoder_adapter"}),
        (("--baseline", "causal-lora"), {"decoder_adapter"}, {"decoder_adapter"}),
    ],
    ids=["lora", "lora and bias", "encoder and lora", "ia3 alone", "causal-lora"],
)
def test_parts(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path, options: Any, trains: Any, files: Any
) -> None:
    out = tmp_path / "e"
    manifest = tune(graftlm, graft_folder, task_file, out, *options)
    assert {row["group"] for row in manifest["run"]["freeze_plan"] if row["trains"]} == trains
    assert {path.name for path in out.iterdir()} == files | {"task_encoder.json", "README.md"}
    written = graftlm("generate", graft_folder, "name[a]", "--task-encoder", out)
    assert written.code == 0, written.err
    scored = graftlm("eval", graft_folder, "--task-encoder", out, "--task", task_file, "--out", tmp_path / "s.json")
    assert scored.code == 0, scored.err


def test_the_plain_language_model_is_written_whole_and_evaluated_by_the_same_code(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "lm"
    run = tune(graftlm, graft_folder, task_file, out, "--baseline", "causal-full")
    assert run["keeps_decoder"] is False
    assert json.loads((out / "config.json").read_text())["share_layers"] is True
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (out, graft_folder)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    scored = graftlm("eval", out, "--task", task_file, "--out", tmp_path / "s.json")
    assert scored.code == 0, scored.err


def test_shared_layers_train_as_one_and_become_a_language_model(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--freeze", "none", "--share-layers", "--encoder-attention", "bidirectional", "--steps", 4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tune(graftlm, graft_folder, task_file, whole, *options)
    config = json.loads((whole / "config.json").read_text())
    assert (config["share_layers"], config["encoder_attention"]) == (True, "bidirectional")
    command = ("tune", graft_folder, "--task", task_file, "--out", parts, *options)
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 2)
        assert graftlm(*command).code == 130
    assert graftlm(*command, "--resume").code == 0
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    exported = graftlm("export", whole, "--format", "causal-lm", "--out", tmp_path / "lm")
    assert exported.code == 0, exported.err
    tuned = tune(graftlm, whole, task_file, tmp_path / "e")
    assert tuned["run"]["keeps_decoder"] is True


def test_an_interrupted_lora_goes_on_where_it_was(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("tune", graft_folder, "--task", task_file, "--steps", 4, "--lora", 2, "--decoder-adapter", "ia3")
    assert graftlm(*command, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 2)
        assert graftlm(*command, "--out", tmp_path / "parts").code == 130
    assert graftlm(*command, "--out", tmp_path / "parts", "--resume").code == 0
    for side in ("encoder", "decoder"):
        file = Path(f"{side}_adapter") / "adapter_model.safetensors"
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--lora", 0), "rank of at least 1"),
        (("--decoder-adapter", "prefix"), "choose none, bias, ia3, lora"),
        (("--adapter-rank", 4), "adapter_rank"),
        (("--decoder-adapter", "bias", "--freeze", "none"), "frozen decoder"),
        (("--baseline", "lora"), "causal-lora or causal-full"),
        (("--baseline", "causal-full", "--encoder-attention", "bidirectional"), "causal encoder"),
        (("--freeze", "decoder,encoder"), "nothing to train"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_one_sentence(refuses_to_tune: Check, options: Any, words: str) -> None:
    refuses_to_tune(options, words)
