"""graftlm distill, and tune and train with a teacher: online and stored, from the page and the recipe that ship."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Command, refused
from graftlm.adaptation.adapt import adapt_to_folder
from graftlm.training import teacher_store
from updates import press_ctrl_c

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "distillation" / "prefix_lm.yaml"
SENTENCES = ["the quick brown fox jumps over the lazy dog", "a lazy dog sleeps", "dogs and foxes run over the hill"]


@pytest.fixture
def llm(tiny_lm: Callable[..., tuple[object, Path]]) -> Path:
    """The language model that the graft is made of."""
    return tiny_lm("gemma2")[1]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A task of eight texts, of which some have several parts."""
    rows = [{"text": " ".join([SENTENCES[i % 3]] * (1 + i % 4))} for i in range(8)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "texts.yaml"
    path.write_text(
        "name: texts\ntrain: texts.jsonl\nvalidation: texts.jsonl\n"
        "objective: {name: prefix_lm}\nsource_length: 16\ntarget_length: 16\n"
    )
    return path


def record(folder: Path) -> dict:
    found: dict = json.loads((folder / "task_encoder.json").read_text())["run"]
    return found


def test_the_page_runs(
    graftlm: Command, llm: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As written, with a tiny model in the shipped one's place and two updates."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    section = page[page.index("## Distillation") : page.index("## Which weights are kept")]
    lines = re.findall(r"^    graftlm (.*)$", section, flags=re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["adapt", "tune", "distill", "tune"]
    for line in lines:
        words = [str(llm) if word == "embedded-lm" else word for word in shlex.split(line)]
        run = graftlm(*words, *(["--steps", 2] if words[0] == "tune" else []))
        assert run.code == 0, (line, run.err)
    online, offline = (record(tmp_path / name)["teacher"] for name in ("online", "my-encoder"))
    assert (online["stored"], offline["stored"], online["sha256"]) == (False, True, offline["sha256"])


def test_the_shipped_recipe_runs(graftlm: Command, llm: Path, graft_folder: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    changes = [f"model={graft_folder}", f"task={texts}", f"teacher={llm}", f"out={out}", "steps=3", "batch_tokens=60"]
    run = graftlm("train", RECIPE, *changes, "warmup_steps=0")
    assert run.code == 0, run.err
    assert f"teacher: {llm} (asked for each batch), weight 0.5, temperature 1, sample 256" in run.err
    made = record(out)
    assert (made["settings"]["z_loss"], made["teacher"]["k"]) == (1e-4, 256)
    assert graftlm("report", out, "--out", tmp_path / "r.html").code == 0
    assert f"cross-entropy; z-loss 0.0001; teacher {llm}, weight 0.5" in (tmp_path / "r.html").read_text()


def test_a_mixture_with_targets_beside_the_recipe(
    graftlm: Command, llm: Path, graft_folder: Path, texts: Path, task_file: Path, tmp_path: Path
) -> None:
    for task in (texts, task_file):
        options = ("--keep", "top_k", "--k", 8, "--temperature", 2, "--out", tmp_path / "targets" / task.stem)
        run = graftlm("distill", task, "--teacher", llm, *options)
        assert run.code == 0, run.err
        assert re.search(r"targets of \d+ tokens in 8 documents, 0\.\d MB", run.out)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {graft_folder}\ntask: [texts.yaml, task.yaml]\nout: out\nteacher: targets\nteacher_weight: 0.25\n"
        "label_smoothing: 0.1\nsteps: 4\nbatch_size: 4\naccumulation: 2\npacking: true\n"
    )
    run = graftlm("train", recipe)
    assert run.code == 0, run.err
    teacher = record(tmp_path / "out")["teacher"]
    assert teacher.items() >= {"weight": 0.25, "temperature": 2.0, "keep": "top_k", "k": 8, "stored": True}.items()
    refused(graftlm("train", recipe, "out=other", "teacher_k=9"), "are of k 8 instead of 9")
    refused(graftlm("train", recipe, "out=other", f"task={texts}", "teacher=null"), "no teacher; name one")
    texts.write_text(texts.read_text().replace("target_length: 16", "target_length: 8"))
    refused(graftlm("train", recipe, "out=other"), "are of length", "write them anew to another folder")
    assert not (tmp_path / "other").exists()


def test_a_stopped_distill_goes_on(
    graftlm: Command, llm: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_store, "SHARD_TOKENS", 40)
    words = ("distill", texts, "--teacher", llm, "--k", 4, "--out")
    write, written = teacher_store.save_file, []

    def stop_at_the_second(*given: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(given)
        write(*given)

    with monkeypatch.context() as patch:
        patch.setattr(teacher_store, "save_file", stop_at_the_second)
        run = graftlm(*words, tmp_path / "parts")
    assert run.code == 130
    assert "the same command goes on" in run.err
    refused(graftlm(*words, tmp_path / "parts", "--seed", 1), "are of seed 0 instead of 1")
    made = []
    for name in ("parts", "whole"):
        assert graftlm(*words, tmp_path / name).code == 0
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) > 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--keep", "best"), "keep is 'best'"),
        (("--k", 0), "k is 0; it must be at least 1"),
        (("--temperature", 0), "temperature is 0.0; it must be above 0"),
    ],
    ids=str,
)
def test_what_cannot_be_distilled_is_one_sentence(
    graftlm: Command, llm: Path, texts: Path, tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    refused(graftlm("distill", texts, "--teacher", llm, "--out", tmp_path / "t", *options), words)
    assert not (tmp_path / "t").exists()


def test_models_that_cannot_teach(
    graftlm: Command, llm: Path, graft_folder: Path, texts: Path, tmp_path: Path, tiny_encoder: Callable[..., tuple]
) -> None:
    encoder = tiny_encoder("bert")[1]
    refused(graftlm("distill", texts, "--teacher", encoder, "--out", tmp_path / "t"), "a decoder-only language model")
    tuned = ("tune", graft_folder, "--task", texts, "--out", tmp_path / "out", "--dry-run")
    refused(graftlm(*tuned, "--teacher", tmp_path), "config.json")
    refused(graftlm(*tuned, "--teacher-weight", 0.3), "no teacher; name one")
    assert graftlm(*tuned, "--teacher", llm).code == 0
    unfinished = tmp_path / "targets"
    assert graftlm("distill", texts, "--teacher", llm, "--out", unfinished, "--k", 4).code == 0
    next(unfinished.glob("shard-*")).unlink()
    refused(graftlm(*tuned, "--teacher", unfinished), "lacks 1 of its 1 shards")


def test_a_run_with_a_teacher_resumes_from_the_command_line(
    graftlm: Command, llm: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graft = tmp_path / "graft"
    adapt_to_folder(llm, graft)
    words = ["tune", graft, "--task", texts, "--steps", 4, "--eval-every", 2, "--batch-size", 2, "--teacher", llm]
    more = ["--teacher-k", 8, "--out"]
    assert graftlm(*words, *more, tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 2)
        assert graftlm(*words, *more, tmp_path / "parts").code == 130
    refused(graftlm(*words, "--teacher-k", 9, "--resume", "--out", tmp_path / "parts"), "teacher_k was 8 and is 9")
    run = graftlm(*words, *more, tmp_path / "parts", "--resume")
    assert run.code == 0, run.err
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
