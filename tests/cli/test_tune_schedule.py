"""graftlm tune and train with schedules, optimizers, averages and gates; adapt with initialisations."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Check, Command, refused
from graftlm.adaptation.store import load_graft


def test_tune_with_all_of_them(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> None:
    task_file.write_text(task_file.read_text() + "validation: rows.jsonl\n")
    out = tmp_path / "e"
    run = graftlm(
        "tune", graft_folder, "--task", task_file, "--out", out, "--steps", 5, "--batch-size", 2, "--eval-every", 2,
        "--warmup-steps", 1, "--schedule", "wsd", "--decay-share", 0.4, "--optimizer", "muon", "--average", 2,
        "--encoder-attention", "gated",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "the weights are the mean of those of updates 4, 5 (validation loss" in " ".join(run.out.split())
    manifest = json.loads((out / "task_encoder.json").read_text())
    wanted = {"schedule": "wsd", "decay_share": 0.4, "optimizer": "muon", "average": 2, "warmup_steps": 1}
    assert {name: manifest["run"]["settings"][name] for name in wanted} == wanted
    assert (manifest["run"]["average"]["steps"], manifest["run"]["best"]) == ([4, 5], None)
    assert manifest["settings"]["encoder_attention"] == "gated"
    assert "the mean of those of updates 4, 5" in (out / "README.md").read_text()
    assert not (tmp_path / "e.run").exists()
    assert graftlm("report", out, "--out", tmp_path / "r.html").code == 0
    assert "of the weights after 4, 5 updates, validation loss" in (tmp_path / "r.html").read_text()
    assert graftlm("generate", graft_folder, "name[a]", "--task-encoder", out).code == 0


def test_a_recipe_file_has_the_same_fields(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    fields = {"model": str(graft_folder), "task": str(task_file), "out": "e", "steps": 30, "schedule": "wsd"}
    recipe.write_text(json.dumps(fields | {"optimizer": "muon", "average": 2, "eval_every": 10}))
    assert graftlm("train", recipe, "--dry-run").code == 0
    run = graftlm("train", recipe, "decay_share=0.5", "--dry-run")
    refused(run, "takes 20 updates to warm up and 15 to decay, of 30")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--schedule", "step"), "choose cosine, linear, constant, wsd"),
        (("--decay-share", 0.1), "decay_share belongs to schedule wsd"),
        (("--optimizer", "sgd"), "choose adamw or muon"),
        (("--optimizer", "muon", "--lora", 2), "of which none trains; choose adamw"),
        (("--average", 5), "have 3; lower average or eval_every"),
        (("--encoder-attention", "gated", "--lora", 2), "nor would a LoRA open them"),
    ],
    ids=str,
)
def test_what_has_no_effect_is_one_sentence(refuses_to_tune: Check, options: Any, words: str) -> None:
    refuses_to_tune(options, words)


def test_adapt_with_an_initialisation_of_cross_attention(graftlm: Command, tiny_lm: Any, tmp_path: Path) -> None:
    source, out = tiny_lm("llama")[1], tmp_path / "graft"
    run = graftlm("adapt", source, "--recipe", "t5gemma", "--cross-attention", "zero_out", "--out", out)
    assert run.code == 0, run.err
    assert json.loads((out / "initialisation.json").read_text())["cross_attention"] == "zero_out"
    projection = load_graft(out).decoder.layers[0].cross_attention.o_proj
    assert not projection.weight.any()
    other = graftlm("adapt", source, "--cross-attention", "copy", "--out", tmp_path / "other")
    refused(other, "Recipe lossless has no cross-attention of its own to initialise")
