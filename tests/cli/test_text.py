"""Training on text from the command line: an objective in the task file, alone and mixed with pairs."""

import json
from pathlib import Path

import pytest

from conftest import Command, refused

SENTENCES = ["the quick brown fox jumps over the lazy dog", "a lazy dog sleeps", "dogs and foxes run over the hill"]


@pytest.fixture
def text_task(tmp_path: Path) -> Path:
    """A corpus of ten documents, one empty and one with a NUL, and its task file."""
    texts = [" ".join([SENTENCES[i % 3]] * (1 + i % 4)) for i in range(8)] + ["", "a \0 b"]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    path = tmp_path / "text.yaml"
    path.write_text(
        "name: corpus\ntrain: train.texts.jsonl\nvalidation: validation.texts.jsonl\n"
        "objective: {name: prefix_lm, split: random}\nsource_length: 12\ntarget_length: 12\n"
    )
    return path


def test_a_graft_trains_on_text_and_pairs_together(
    graftlm: Command, graft_folder: Path, text_task: Path, task_file: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {graft_folder}\ntask: [text.yaml, {task_file}]\nout: out\nfreeze: none\n"
        "rates: uniform\nsteps: 6\nbatch_tokens: 60\npacking: true\neval_every: 3\nworkers: 1\n"
    )
    run = graftlm("train", recipe)
    assert run.code == 0, run.err
    assert "corpus, train: left out 1 empty, 1 with NUL characters." in run.err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(record["mixture"]) == 2
    assert set(record["validation"][0]["tasks"]) >= {"corpus"}
    assert record["padding"] == 0.0
    assert record["tasks"]["corpus"]["objective"] == {"name": "prefix_lm", "split": "random"}
    written = graftlm("generate", tmp_path / "out", "the quick brown")
    assert written.code == 0, written.err


def test_an_encoder_tuned_on_text_alone_takes_sources_as_they_are(
    graftlm: Command, graft_folder: Path, text_task: Path, tmp_path: Path
) -> None:
    out = tmp_path / "encoder"
    run = graftlm("tune", graft_folder, "--task", text_task, "--out", out, "--steps", 2, "--batch-size", 2)
    assert run.code == 0, run.err
    [settings] = json.loads((out / "task_encoder.json").read_text())["tasks"]
    assert (settings["name"], settings["source_template"]) == ("corpus", "{source}")
    written = graftlm("generate", graft_folder, "--task-encoder", out, "the quick")
    assert written.code == 0, written.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("objective: {name: prefix_lm, spilt: half}", ("'spilt'", "did you mean 'split'")),
        ("objective: {name: prefixlm}", ("'prefixlm'", "prefix_lm")),
        ("objective: {name: seq2seq}", ("leave out `objective`",)),
        ("objective: {name: ul2, denoisers: original}", ("sentinels",)),
        ("objective: {name: prefix_lm}\nmetrics: [bleu]", ("unknown field 'metrics'",)),
        ("objective: {name: prefix_lm}\nsource_lenght: 4", ("did you mean 'source_length'",)),
    ],
)
def test_a_mistake_in_the_task_file_is_named(
    line: str, words: tuple[str, ...], graftlm: Command, graft_folder: Path, text_task: Path, tmp_path: Path
) -> None:
    kept = [row for row in text_task.read_text().splitlines() if not row.startswith(("objective", "source_length"))]
    text_task.write_text("\n".join([*kept, line]) + "\n")
    refused(graftlm("tune", graft_folder, "--task", text_task, "--out", tmp_path / "out", "--steps", 1), *words)
    assert not (tmp_path / "out").exists()


def test_text_is_no_task_to_evaluate(graftlm: Command, graft_folder: Path, text_task: Path, tmp_path: Path) -> None:
    refused(graftlm("eval", graft_folder, "--task", text_task, "--out", tmp_path / "x.json"), "which is for training")


def test_sentinels_are_added_to_be_trained_on(graftlm: Command, tiny_lm, text_task: Path, tmp_path: Path) -> None:
    text_task.write_text(text_task.read_text().replace("prefix_lm, split: random", "ul2, denoisers: t5gemma2"))
    for name, options in (("without", ()), ("with", ("--add-sentinels", 20))):
        graft = tmp_path / name
        made = graftlm("adapt", tiny_lm("gemma2")[1], "--recipe", "t5gemma", *options, "--out", graft)
        assert made.code == 0, made.err
        run = graftlm(
            "tune", graft, "--task", text_task, "--out", tmp_path / "out", "--steps", 2, "--batch-size", 2,
            "--freeze", "none",
        )  # fmt: skip
        if options:
            assert run.code == 0, run.err
        else:
            refused(run, "--add-sentinels")
    refused(graftlm("adapt", tiny_lm("gemma2")[1], "--add-sentinels", 1, "--out", tmp_path / "no"), "lossless graft")
