"""The bridge study from data to report, on a model and a language that the test makes."""

import gzip
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graftlm.cli.main import app
from graftlm.errors import TaskError
from graftlm.studies.bridge.analysis import BridgeRun, difference, smallest_difference, smallest_differences
from graftlm.studies.bridge.arms import TUNED, UNFROZEN
from graftlm.studies.bridge.plan import BridgePlan
from graftlm.studies.bridge.scale import MINI, SCALES, Budget, Scale
from graftlm.studies.bridge.study import run_study, write_results
from graftlm.studies.bridge.work import Train
from graftlm.studies.runs import result_rows, runs_of
from updates import press_ctrl_c

WORDS = {"rot": "red", "blau": "blue", "haus": "house", "hund": "dog", "das": "the", "sieht": "sees", "und": "and"}


def budget(steps: int, *rates: float) -> Budget:
    return Budget(settings={"steps": steps, "batch_size": 8, "warmup_steps": 1, "eval_every": 5}, rates=rates)


TINY = replace(
    MINI,
    sets=("toy",),
    shape={
        "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64,
    },
    vocabulary=60,
    base=budget(10, 1e-2),
    tuned=budget(6, 1e-3, 1e-2),
    seeds=(0, 1),
    validation=6,
    max_tokens=24,
    max_new_tokens=12,
    num_beams=2,
    arms={
        "none": TUNED["none"],
        "linear-gca": TUNED["linear-gca"],
        "unfreeze-scalar": UNFROZEN["unfreeze-scalar"],
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Word-for-word translation."""
    folder, choose = tmp_path_factory.mktemp("data"), random.Random(0)
    (folder / "toy").mkdir()
    for split, count in {"train": 40, "validation": 6, "test": 8}.items():
        with gzip.open(folder / "toy" / f"{split}.jsonl.gz", "wt") as file:
            for number in range(count):
                source = choose.choices(list(WORDS), k=choose.randint(2, 7))
                row = {"id": f"{split}-{number}", "source": " ".join(source)}
                file.write(json.dumps(row | {"target": " ".join(WORDS[word] for word in source)}) + "\n")
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The study's folder, and the records of its jobs; shared: do not change."""
    out = tmp_path_factory.mktemp("study")
    return out, run_study(TINY, data, out, 1, lambda text: None)


def test_every_arm_is_trained_and_translated(data: Path, finished: tuple[Path, Any]) -> None:
    out, done = finished
    # For each arm: the first seed at two rates, the second seed at one, both tested; and the base.
    assert len(done) == 3 * (3 + 2) + 2
    results = write_results(TINY, "tiny", data, out, done)
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    assert {(row["arm"], row["seed"]) for row in results["rows"]} == {
        ("base", 0), *((arm, seed) for arm in TINY.arms or {} for seed in (0, 1))
    }  # fmt: skip
    for row in results["rows"]:
        assert {"bleu", "chrf", "loss", "source_gain", "bleu, short", "bleu, long"} == set(row["metrics"])
        assert row["validation"]
        assert (row["bridge"] is None) == (row["arm"] in ("base", "none"))
    page = (out / "report.html").read_text()
    for part in ("Bridge of linear-gca", "Gradual unfreezing", "unfreeze-scalar"):
        assert part in page


def test_arms_of_one_seed_begin_with_the_same_base_and_see_the_same_rows(finished: tuple[Path, Any]) -> None:
    done = finished[1]
    runs = [record["run"] for name, record in done.items() if "run" in record and not name.startswith("base")]
    assert len({json.dumps(run["mixture"]) for run in runs}) == 1
    assert runs[0]["mixture"]["toy"]["examples"] == 20
    base = next(record["run"] for name, record in done.items() if "run" in record and name.startswith("base"))
    assert base["mixture"]["toy"]["examples"] == 20


def test_a_study_that_ended_is_not_done_again(data: Path, finished: tuple[Path, Any]) -> None:
    out, done = finished
    said: list[str] = []
    assert run_study(TINY, data, out, 1, said.append) == done
    assert said == []


def test_a_job_that_was_stopped_leaves_no_model_and_goes_on(
    data: Path, finished: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done = finished
    folder = tmp_path / "study"
    shutil.copytree(out, folder)
    plan = BridgePlan(TINY, data)
    job = next(job for job in plan(done) if isinstance(job, Train) and job.arm_name == "linear-gca")
    shutil.rmtree(folder / job.name)
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            job(folder)
    assert [path.name for path in (folder / job.name).iterdir()] == ["checkpoints"]
    assert job(folder)["run"]["losses"] == [tuple(pair) for pair in done[job.name]["run"]["losses"]]
    assert [path.name for path in (folder / job.name).iterdir()] == ["model"]


def test_a_difference_is_that_of_the_means_and_lies_in_its_interval(data: Path, finished: tuple[Path, Any]) -> None:
    plan, done = BridgePlan(TINY, data), finished[1]
    runs = runs_of(BridgeRun, plan(done), done)
    rows = result_rows(runs, "tiny")
    for metric in ("loss", "bleu"):
        found = difference(runs["none"], runs["linear-gca"], metric)
        means = {
            arm: sum(row["metrics"][metric]["value"] for row in rows if row["arm"] == arm) / 2
            for arm in ("none", "linear-gca")
        }
        assert found["value"] == pytest.approx(means["linear-gca"] - means["none"])
        assert found["low"] <= found["value"] <= found["high"]
        assert len(found["seeds"]) == 2
        same = difference(runs["none"], runs["none"], metric)
        assert (same["value"], same["low"], same["high"]) == (0, 0, 0)


def test_the_smallest_difference_is_that_of_a_hand_made_example() -> None:
    # Variance of the seeds' mean: 2 / 2; of sentences: (1.96 / 1.96) squared.
    one = {"difference": {"bleu": {"seeds": [-1.0, 1.0], "low": -1.96, "high": 1.96}}}
    assert smallest_difference({"a": one, "b": {}}) == pytest.approx(2.8 * 2**0.5)
    assert smallest_difference({"a": {"difference": {"bleu": {"seeds": [1.0], "low": 0, "high": 1}}}}) is None


def test_smallest_differences_are_of_arms_with_the_same_test_sets() -> None:
    def arm(tests: str, width: float) -> dict[str, Any]:
        return {
            "tests": tests,
            "difference": {"bleu": {"seeds": [0.0, 0.0], "low": -1.96 * width, "high": 1.96 * width}},
        }

    found = {"a": arm("x and y", 1.0), "b": arm("x and y", 1.0), "c": arm("z", 10.0), "d": {"tests": "w"}}
    assert smallest_differences(found) == {"x and y": pytest.approx(2.8), "z": pytest.approx(28.0)}


def test_data_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"There is no .*train\.jsonl\.gz; give --data"):
        run_study(TINY, tmp_path, tmp_path / "out", 1, lambda text: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wings"], "There is no study 'wings'"),
        (["bridge", "--scale", "huge"], "There is no scale 'huge'"),
        (["bridge"], "Give --out"),
        (["bridge", "--out", "x"], "needs --data"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["study", *arguments])
    assert result.exit_code == 1
    assert message in str(result.exception)


def test_the_verb_runs_a_study(data: Path, finished: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    scales: dict[str, Scale] = {"tiny": TINY}
    monkeypatch.setattr("graftlm.studies.bridge.scale.SCALES", SCALES | scales)
    arguments = ["study", "bridge", "--scale", "tiny"]
    outline = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert outline.exit_code == 0, outline.exception
    assert "unfreeze-scalar" in outline.output
    made = CliRunner().invoke(app, [*arguments, "--data", str(data), "--out", str(finished[0]), "--workers", "1"])
    assert made.exit_code == 0, made.exception
    assert "17 jobs" in made.output
