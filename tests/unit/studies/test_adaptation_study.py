"""The adaptation study from data to report, on a tiny language model and texts that the test makes."""

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graftlm.cli.main import app
from graftlm.data.mixture import Mixture
from graftlm.data.tokenizers import Tokenizers, tokenizer_of
from graftlm.errors import TaskError
from graftlm.families.locate import locate
from graftlm.objectives.text_examples import text_examples
from graftlm.studies.adaptation.analysis import AdaptationRun, thresholds, updates_to
from graftlm.studies.adaptation.arms import BASE, all_arms
from graftlm.studies.adaptation.plan import AdaptationPlan
from graftlm.studies.adaptation.scale import MINI, SCALES, Scale
from graftlm.studies.adaptation.study import run_study, write_results
from graftlm.studies.adaptation.work import text_tasks
from graftlm.studies.runs import runs_of
from graftlm.studies.search import Budget

WORDS = [*"abcdefghijklmnopqrstuvwxyz"]
ARMS = (BASE, "distilled", "ul2", "unbalanced-first-0.1")
RATES = (1e-3, 1e-2)


@pytest.fixture(scope="module")
def scale(language_model: Path) -> Scale:
    """Some arms of the study on a tiny Llama with the shipped tokenizer."""
    folder = language_model
    arms = all_arms(
        teacher={"teacher": str(folder), "teacher_weight": 1.0, "teacher_keep": "all"},
        unbalanced={"decoder_layers": "0,2"},
        first={"0.1": {"share": 0.1}},
    )
    return replace(
        MINI,
        model=str(folder),
        arms={name: arms[name] for name in ARMS},
        sets=("toy", "other"),
        documents=20,
        source_length=24,
        target_length=24,
        budget=Budget(settings={"steps": 4, "batch_size": 2, "warmup_steps": 1, "eval_every": 2}, rates=RATES),
        seeds=(0, 1),
        validation=3,
        test=4,
        early=100.0,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of letters in any order."""
    folder, choose = tmp_path_factory.mktemp("data"), random.Random(0)
    for name in ("toy", "other"):
        (folder / name).mkdir()
        for split, count in {"train": 24, "validation": 8}.items():
            with gzip.open(folder / name / f"{split}.jsonl.gz", "wt") as file:
                for _ in range(count):
                    text = " ".join(choose.choices(WORDS, k=choose.randint(10, 20)))
                    file.write(json.dumps({"text": text}) + "\n")
    return folder


@pytest.fixture(scope="module")
def finished(scale: Scale, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The study's folder, and the records of its jobs; shared: do not change."""
    out = tmp_path_factory.mktemp("study")
    return out, run_study(scale, data, out, 1, lambda text: None)


def test_every_arm_is_trained_and_measured(scale: Scale, data: Path, finished: tuple[Path, Any]) -> None:
    out, done = finished
    # For each arm: the first seed at two rates, the second seed at one, both measured.
    assert len(done) == 5 * len(ARMS)
    results = write_results(scale, "tiny", data, out, done)
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    assert {(row["arm"], row["seed"]) for row in results["rows"]} == {(arm, seed) for arm in ARMS for seed in (0, 1)}
    for row in results["rows"]:
        assert row["metrics"].keys() == {"loss", "source_gain"}
        assert [step for step, _ in row["validation"]] == [step for step, _ in row["source_gain"]] == [0, 2, 4]
    arms = results["arms"]
    assert {name for name, arm in arms.items() if "difference" in arm} == {*ARMS[1:-1]}
    assert arms["ul2"]["own_loss"] != arms[BASE]["own_loss"]
    assert results["smallest_difference"]["loss"] > 0
    page = (out / "report.html").read_text()
    for part in ("Objective", "Cross-attention first", "unbalanced-first-0.1", MINI.told):
        assert part in page
    assert "Not finished" not in page


def test_all_arms_see_the_same_texts_and_are_measured_alike(scale: Scale, finished: tuple[Path, Any]) -> None:
    done = finished[1]
    trained = [record for name, record in done.items() if not name.endswith("-test")]
    assert len({json.dumps(record["run"]["mixture"]) for record in trained}) == 1
    assert trained[0]["run"]["mixture"]["toy"]["examples"] == 20
    tokens = {
        name: [n for _, n in record["statistics"]["loss"]] for name, record in done.items() if name.endswith("-test")
    }
    assert len({str(numbers) for numbers in tokens.values()}) == 1
    assert len(next(iter(tokens.values()))) == 2 * scale.test
    starts = {record["arm"]: record["start"]["losses"]["toy"] for record in trained if record["seed"] == 0}
    assert starts[BASE] == starts["distilled"] == starts["ul2"]
    assert len({starts[name] for name in (BASE, "unbalanced-first-0.1")}) == 2


def test_every_objective_draws_the_same_whole_documents(scale: Scale, data: Path) -> None:
    scale = replace(scale, source_length=MINI.source_length, target_length=MINI.target_length)
    tokenizer = tokenizer_of(locate("embedded-lm"))
    drawn = {}
    for name in (BASE, "ul2"):
        tasks = text_tasks(data, scale, scale.arms[name])
        examples = {task.name: text_examples(task, Tokenizers(tokenizer, tokenizer), "train", 0) for task in tasks}
        assert {task: len(found) for task, found in examples.items()} == {"toy": 24, "other": 24}
        drawn[name] = [(task, item.number) for task, item in Mixture.of(examples).draws(30, seed=0)]
    assert drawn[BASE] == drawn["ul2"]


def test_what_each_arm_trains_on_is_its_own(finished: tuple[Path, Any]) -> None:
    runs = {record["arm"]: record["run"] for record in finished[1].values() if "run" in record}
    assert runs["distilled"]["teacher"]["keep"] == "all"
    assert {name for name, run in runs.items() if run["teacher"] is not None} == {"distilled"}
    first = {name: len({begin["trainable"] for begin in run["phases"]}) for name, run in runs.items()}
    assert {name for name, phases in first.items() if phases == 2} == {"unbalanced-first-0.1"}


def test_a_report_of_what_is_done_so_far(scale: Scale, data: Path, finished: tuple[Path, Any], tmp_path: Path) -> None:
    done = finished[1]
    assert write_results(scale, "tiny", data, tmp_path, {})["rows"] == []
    assert "Not finished: 0 of at least 8 jobs" in (tmp_path / "report.html").read_text()
    early = {name: record for name, record in done.items() if not (name.startswith(BASE) and "seed-1" in name)}
    arms = write_results(scale, "tiny", data, tmp_path, early)["arms"]
    assert (arms[BASE]["seeds"], arms["ul2"]["seeds"]) == (1, 2)
    assert len(arms["ul2"]["difference"]["loss"]["seeds"]) == 1


def test_a_study_that_ended_is_not_done_again(scale: Scale, data: Path, finished: tuple[Path, Any]) -> None:
    out, done = finished
    said: list[str] = []
    assert run_study(scale, data, out, 1, said.append) == done
    assert said == []


def test_updates_to_a_loss_are_those_of_the_first_validation_that_has_it(
    scale: Scale, data: Path, finished: tuple[Path, Any]
) -> None:
    curve = [[0, 6.0], [50, 5.5], [100, 5.0], [150, 5.2]]
    assert [updates_to(curve, loss) for loss in (7.0, 5.5, 5.1, 4.9)] == [0, 50, 100, None]
    runs = runs_of(AdaptationRun, AdaptationPlan(scale, data)(finished[1]), finished[1])
    to_reach = thresholds(runs, 3.0)
    assert to_reach["early"] == 3.0
    best = [min(loss for step, loss in run.curve("loss") if step) for run in runs[BASE]]
    assert to_reach[BASE] == pytest.approx(sum(best) / 2)
    assert thresholds({}, 3.0) == {"early": 3.0}


def test_texts_that_are_missing_are_named(scale: Scale, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"There is no .*train\.jsonl\.gz; give --data"):
        run_study(scale, tmp_path, tmp_path / "out", 1, lambda text: None)
    assert not (tmp_path / "out").exists()


def test_the_verb_runs_the_study(
    scale: Scale, data: Path, finished: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftlm.studies.adaptation.scale.SCALES", SCALES | {"tiny": scale})
    arguments = ["study", "adaptation", "--scale", "tiny"]
    outline = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert outline.exit_code == 0, outline.exception
    assert "12 runs, 48 updates in all" in outline.output
    arguments += ["--data", str(data), "--workers", "1"]
    for more in [], ["--so-far"]:
        made = CliRunner().invoke(app, [*arguments, "--out", str(finished[0]), *more])
        assert made.exit_code == 0, made.exception
        assert "20 jobs" in made.output
    nothing = CliRunner().invoke(app, [*arguments, "--out", str(finished[0] / "none"), "--so-far"])
    assert "Nothing is done in" in str(nothing.exception)
