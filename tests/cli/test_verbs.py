"""The main job on a tiny model: adapt, tune on the frozen decoder, evaluate, generate."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import Command
from graftlm.adaptation.store import load_graft
from graftlm.adaptation.task_encoder import load_task_encoder


@pytest.fixture
def encoder_folder(graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path) -> Path:
    out = tmp_path / "encoder"
    run = graftlm(
        "tune", graft_folder, "--task", task_file, "--out", out, "--steps", 30, "--batch-size", 4,
        "--encoder-attention", "bidirectional",
    )  # fmt: skip
    assert run.code == 0, run.err
    return out


def test_tuning_writes_an_encoder_and_leaves_the_decoder_bit_identical(
    encoder_folder: Path, graft_folder: Path, tiny_lm, task_file: Path
) -> None:
    manifest = json.loads((encoder_folder / "task_encoder.json").read_text())
    assert manifest["settings"]["encoder_attention"] == "bidirectional"
    assert manifest["run"]["parameters"]["trainable"] > 0
    losses = [loss for _, loss in manifest["run"]["losses"]]
    assert losses[-1] < losses[0]

    before = load_file(graft_folder / "model.safetensors")
    tuned = load_file(encoder_folder / "model.safetensors")
    model = load_graft(graft_folder)
    assert set(tuned) == {f"encoder.{name}" for name, _ in model.encoder.named_parameters()}
    assert all(not torch.equal(tuned[name], before[name.replace("encoder.", "decoder.")]) for name in tuned)

    load_task_encoder(model, encoder_folder)
    donor = load_file(tiny_lm("gemma2")[1] / "model.safetensors")
    held = model.state_dict()
    assert torch.equal(held["decoder.embedding.weight"], donor["model.embed_tokens.weight"])
    decoder = [name for name in held if name.startswith("decoder.layers.") and name.endswith("_proj.weight")]
    assert decoder
    for name in decoder:
        source = name.replace("decoder.", "model.").replace(".attention.", ".self_attn.")
        assert torch.equal(held[name].view(torch.uint8), donor[source].view(torch.uint8)), name


def test_evaluation_writes_a_record(
    graftlm: Command, graft_folder: Path, encoder_folder: Path, task_file: Path
) -> None:
    out = encoder_folder.parent / "scores.json"
    run = graftlm("eval", graft_folder, "--task-encoder", encoder_folder, "--task", task_file, "--out", out)
    assert run.code == 0, run.err
    record = json.loads(out.read_text())
    assert record["task"] == "tiny"
    assert record["encoder"] == "tiny"
    assert record["n"] == 8
    assert set(record["metrics"]) == {"bleu", "chrf", "exact_match", "loss", "source_gain"}
    assert all(m["low"] <= m["value"] <= m["high"] for m in record["metrics"].values())
    assert "source_gain" in run.out


def test_beams_on_the_command_line_replace_the_tasks(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    run = graftlm("eval", graft_folder, "--task", task_file, "--out", out, "--num-beams", 3, "--limit", 2)
    assert run.code == 0, run.err
    assert json.loads(out.read_text())["decoding"]["num_beams"] == 3


def test_comparison_of_two_records(
    graftlm: Command, graft_folder: Path, encoder_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    a, b, out = (tmp_path / name for name in ("a.json", "b.json", "comparison.json"))
    assert graftlm("eval", graft_folder, "--task", task_file, "--out", a).code == 0
    evaluated = graftlm("eval", graft_folder, "--task", task_file, "--out", b, "--task-encoder", encoder_folder)
    assert evaluated.code == 0, evaluated.err
    shown = graftlm("eval", "--compare", a, b)
    assert shown.code == 0, shown.err
    assert "B - A" in shown.out
    assert shown.err == ""
    kept = graftlm("eval", "--compare", a, b, "--out", out)
    assert kept.code == 0, kept.err
    assert kept.out == shown.out
    result = json.loads(out.read_text())
    assert (result["task"], result["n"], result["b"]["encoder"]) == ("tiny", 8, "tiny")
    assert set(result["metrics"]) == {"bleu", "chrf", "exact_match", "loss", "source_gain"}
    assert result["metrics"]["loss"]["high"] < 0
    assert result["metrics"]["loss"]["p"] < 0.05
    records = [json.loads(path.read_text())["metrics"]["loss"]["value"] for path in (a, b)]
    assert result["metrics"]["loss"]["difference"] == pytest.approx(records[1] - records[0])


def test_choices_are_evaluated_by_likelihood(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    choices = [f"the {c} dog" for c in "abcdefgh"]
    task_file.write_text(
        f"name: which\ntest: rows.jsonl\nmetrics: [accuracy]\nmax_new_tokens: 8\nchoices: {json.dumps(choices)}\n"
    )
    run = graftlm("eval", graft_folder, "--task", task_file, "--out", out)
    assert run.code == 0, run.err
    record = json.loads(out.read_text())
    assert set(record["metrics"]) == {"accuracy", "loss", "source_gain"}
    assert {row["choice"] for row in record["rows"]} <= set(choices)


def test_tuning_improves_the_loss(graftlm: Command, graft_folder: Path, encoder_folder: Path, task_file: Path) -> None:
    losses = []
    for extra in ([], ["--task-encoder", encoder_folder]):
        out = encoder_folder.parent / f"scores{len(losses)}.json"
        assert graftlm("eval", graft_folder, "--task", task_file, "--out", out, *extra).code == 0
        losses.append(json.loads(out.read_text())["metrics"]["loss"]["value"])
    assert losses[1] < losses[0]


def test_generation_from_a_text_and_from_a_file(
    graftlm: Command, graft_folder: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    one = graftlm("generate", graft_folder, "name[a]", "--task-encoder", encoder_folder)
    assert one.code == 0, one.err
    out = tmp_path / "out.jsonl"
    run = graftlm(
        "generate", graft_folder, "--task-encoder", encoder_folder,
        "--input", tmp_path / "rows.jsonl", "--output", out, "--num-beams", 1,
    )  # fmt: skip
    assert run.code == 0, run.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(i) for i in range(8)]
    assert rows[0]["prediction"] == one.out.rstrip("\n")


def test_training_everything_writes_a_whole_model(
    graftlm: Command, graft_folder: Path, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "whole"
    run = graftlm("tune", graft_folder, "--task", task_file, "--out", out, "--steps", 2, "--freeze", "none")
    assert run.code == 0, run.err
    changed = load_file(out / "model.safetensors")["decoder.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(
        changed, load_file(graft_folder / "model.safetensors")["decoder.layers.0.mlp.up_proj.weight"]
    )
    assert graftlm("generate", out, "name[a]", "--max-new-tokens", 3).code == 0


def test_unbalanced_pair(graftlm: Command, tiny_lm, tmp_path: Path) -> None:
    out = tmp_path / "pair"
    small, large = tiny_lm("gemma2")[1], tiny_lm("gemma2", hidden_size=48)[1]
    run = graftlm("adapt", small, "--encoder-from", large, "--recipe", "t5gemma", "--out", out)
    assert run.code == 0, run.err
    report = json.loads((out / "initialisation.json").read_text())
    assert report["parameters"]["fresh"] > 0
    assert graftlm("generate", out, "name[a]", "--max-new-tokens", 3).code == 0
