"""The steering study on a tiny model: every start is adapted, every cell tuned and tested, and what that comes to."""

import gzip
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

import tiny
from graftlm.cli.main import app
from graftlm.data.collate import Example
from graftlm.data.task import load_task
from graftlm.data.text_task import load_training_task
from graftlm.errors import TaskError
from graftlm.evaluation.loss import per_token
from graftlm.model.parts import group_of
from graftlm.studies.search import Budget
from graftlm.studies.steering.analysis import share_kept
from graftlm.studies.steering.arms import ADAPTED, ARMS, RAW, STARTS, Cell
from graftlm.studies.steering.dry_run import outline
from graftlm.studies.steering.plan import SteeringPlan
from graftlm.studies.steering.prepare import prepare
from graftlm.studies.steering.pulls import pulls
from graftlm.studies.steering.scale import MINI, SCALES, Scale
from graftlm.studies.steering.study import TASKS, run_study, write_results
from graftlm.studies.steering.tasks import HELD_OUT, PREFIX_LM, SEEN, Made, Pairs
from graftlm.studies.steering.work import copy_share

COLOURS = ["red", "blue", "green", "grey", "brown"]
TOY = Pairs(ask="Say {it} again: ", metrics=("token_f1",), max_new_tokens=6)
RATES = (1e-3, 1e-2)
FIRST, CROSS = "adapted-10", "encoder-memory"
CELLS = {
    ADAPTED: ("un-tuned", "encoder", "encoder-lora-2", "encoder-bridge", "adapter", "everything", "causal-lora"),
    RAW: ("un-tuned", "encoder", "everything", "causal-full"),
    "t5gemma": ("encoder", CROSS),
}


@pytest.fixture(scope="module")
def scale(language_model: Path) -> Scale:
    """Some starts and arms of the study on a tiny Llama, one task."""
    return replace(
        MINI,
        model=str(language_model),
        starts={name: STARTS[name] for name in (FIRST, ADAPTED, RAW, "t5gemma-10", "t5gemma")},
        seen={"texts": PREFIX_LM, "keywords": SEEN["keywords"], "seen": replace(TOY, metrics=())},
        held_out={"held": TOY},
        cells=[Cell(start=start, task="held", arm=arm) for start, arms in CELLS.items() for arm in arms],
        sets=("lm_wiki_en", "lm_novels_en", "seen", "held"),
        adaptation=Budget(settings={**MINI.adaptation.settings, "steps": 10, "warmup_steps": 0}, rates=RATES),
        tuning=Budget(settings={"steps": 2, "batch_size": 2, "warmup_steps": 1, "eval_every": 1}, rates=RATES),
        seeds=(0, 1),
        validation=3,
        test=6,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of sentences, and pairs of colours; some rows are in another language."""
    folder, choose = tmp_path_factory.mktemp("data"), random.Random(0)

    def write(name: str, split: str, rows: list[Mapping[str, Any]]) -> None:
        (folder / name).mkdir(exist_ok=True)
        with gzip.open(folder / name / f"{split}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def sentence() -> str:
        return " ".join(["The", *choose.choices(COLOURS, k=choose.randint(6, 9))]) + "."

    def pair(number: int) -> dict[str, Any]:
        words = choose.sample(COLOURS, 3)
        lang = "de" if number % 3 == 2 else "en"
        return {
            "id": str(number),
            "source": " ".join(words),
            "target": " ".join(words[::-1]),
            "lang": lang,
            "task": "t",
        }

    for split, count in {"train": 12, "validation": 6}.items():
        for name in ("lm_wiki_en", "lm_novels_en"):
            write(name, split, [{"text": f"{sentence()} {sentence()}"} for _ in range(count)])
    for name in ("seen", "held"):
        for split, count in {"train": 15, "validation": 9, "test": 12}.items():
            write(name, split, [pair(number) for number in range(count)])
    return folder


@pytest.fixture(scope="module")
def finished(scale: Scale, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The study's folder, and the records of its jobs; shared: do not change."""
    out = tmp_path_factory.mktemp("study")
    return out, run_study(scale, data, out, 1, lambda text: None)


def test_every_cell_is_tuned_and_tested(scale: Scale, data: Path, finished: tuple[Path, Any]) -> None:
    out, done = finished
    results = write_results(scale, "tiny", data, out, done)
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    starts = {name: (start["updates"], len(start["validation"])) for name, start in results["starts"].items()}
    assert starts == {FIRST: (1, 1), ADAPTED: (10, 1), RAW: (0, 0), "t5gemma-10": (1, 1), "t5gemma": (10, 1)}
    rows = {(row["start"], row["arm"], row["seed"]) for row in results["rows"]}
    seeds = {arm: (0,) if arm == "un-tuned" else (0, 1) for arms in CELLS.values() for arm in arms}
    assert rows == {(start, arm, seed) for start, arms in CELLS.items() for arm in arms for seed in seeds[arm]}
    for row in results["rows"]:
        assert {"loss", "source_gain", "token_f1"} <= row["metrics"].keys()
        if row["arm"] != "un-tuned":
            assert [step for step, _ in row["source_gain"]] == [1, 2]
    assert all(cell["pulls"]["encoder"]["l1"] > 0 for cell in results["cells"] if cell["arm"] == "un-tuned")
    trained = {cell["arm"]: cell.get("parameters") for cell in results["cells"] if cell["start"] == ADAPTED}
    assert trained["un-tuned"] is None
    assert trained["adapter"] < trained["encoder"] < trained["encoder-lora-2"] < trained["encoder-bridge"]
    assert trained["encoder"] < trained["everything"]
    page = (out / "report.html").read_text()
    for part in ("Task held", "Where the graft begins", "Copying", "encoder-lora-2", "gradient of the loss"):
        assert part in page
    assert "Not finished" not in page


def test_starts_and_cells_take_the_rates_that_others_found(scale: Scale, finished: tuple[Path, Any]) -> None:
    done = finished[1]
    plan = SteeringPlan(scale, finished[0] / TASKS)

    def tried(arm: str) -> dict[int, set[float]]:
        rates: dict[int, set[float]] = {}
        for record in done.values():
            if record["arm"] == arm:
                rates.setdefault(record["seed"], set()).add(record["rate"])
        return rates

    assert tried(FIRST) == tried("t5gemma-10") == {0: set(RATES)}
    first = plan.start(FIRST, done)
    assert first is not None
    assert tried(ADAPTED) == {0: {first.rate}}
    assert tried(RAW) == {0: {0.0}}
    searched = tried(f"{ADAPTED}.held.encoder")
    assert searched[0] == set(RATES)
    assert len(searched[1]) == 1
    assert tried(f"{RAW}.held.encoder") == {0: searched[1], 1: searched[1]}
    assert tried(f"t5gemma.held.{CROSS}")[0] == set(RATES)


def test_only_what_an_arm_says_is_trained(finished: tuple[Path, Any]) -> None:
    runs = {record["arm"]: record["run"] for record in finished[1].values() if "run" in record}
    trained = {arm: {row["group"] for row in run["freeze_plan"] if row["trains"]} for arm, run in runs.items()}
    assert trained[f"{ADAPTED}.held.encoder"] == {"encoder"}
    assert trained[f"{ADAPTED}.held.encoder-lora-2"] == {"encoder", "decoder_adapter"}
    assert trained[f"{ADAPTED}.held.encoder-bridge"] == {"encoder", "bridge"}
    assert trained[f"{ADAPTED}.held.adapter"] == {"decoder_adapter"}
    assert trained[f"t5gemma.held.{CROSS}"] == trained["t5gemma.held.encoder"] | {"cross_attention"}
    assert [runs[name]["settings"]["share_layers"] for name in (FIRST, ADAPTED, "t5gemma")] == [True, True, False]


def test_nothing_but_starts_and_records_stays(finished: tuple[Path, Any]) -> None:
    out, done = finished
    assert {path.parent.parent.name for path in out.glob("*/model/config.json")} == {
        name for name, record in done.items() if "." not in record["arm"]
    }
    assert not list(out.glob("*/checkpoints"))


def test_a_study_that_ended_is_not_done_again(scale: Scale, data: Path, finished: tuple[Path, Any]) -> None:
    said: list[str] = []
    assert run_study(scale, data, finished[0], 1, said.append) == finished[1]
    assert said == []


def test_a_report_of_what_is_done_so_far(scale: Scale, data: Path, finished: tuple[Path, Any], tmp_path: Path) -> None:
    assert write_results(scale, "tiny", data, tmp_path, {})["rows"] == []
    assert "Not finished: 0 of at least" in (tmp_path / "report.html").read_text()
    early = {name: record for name, record in finished[1].items() if "everything" not in name}
    cells = write_results(scale, "tiny", data, tmp_path, early)["cells"]
    assert cells
    assert not any("kept" in cell for cell in cells)


def test_task_files_say_what_is_asked_and_hold_one_language(data: Path, tmp_path: Path) -> None:
    made = Made(ask="Order: ", share=1.0)
    prepare({"held": TOY, "order": made, "texts": PREFIX_LM}, data, tmp_path)
    task = load_task(tmp_path / "held" / "task.yaml")
    records = task.records("train")
    assert len(records) == 10
    assert task.source(records[0]) == f"Say {{it}} again: {records[0].source}"
    order = load_task(tmp_path / "order" / "task.yaml").records("train")
    assert len(order) == len({record.target for record in order}) == 48
    assert all(sorted(str(record.source).split()) == sorted(str(record.target).split()) for record in order)
    texts = load_training_task(tmp_path / "texts" / "task.yaml")
    assert texts.name == "texts"


def test_data_that_is_missing_is_named(scale: Scale, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"There is no .*train\.jsonl\.gz; give --data"):
        run_study(scale, tmp_path, tmp_path / "out", 1, lambda text: None)


def test_the_share_that_is_kept() -> None:
    untuned, best, half = ([[[score, 1.0]] * 5] for score in (1.0, 3.0, 2.0))
    assert share_kept(untuned, best, half, score=per_token) == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert share_kept(untuned, best, [*half, *best], score=per_token) == {"value": 0.75, "low": 0.75, "high": 0.75}
    assert share_kept(best, best, half, score=per_token) is None


def test_pulls_are_gradients_of_the_loss_per_token() -> None:
    model, plain = (tiny.graft(**tiny.LOSSLESS | {"share_layers": True}) for _ in range(2))
    examples = [Example([5, 9, 3, 7], [4, 8, 2]), Example([6, 2], [3, 3, 5, 9, 2]), *[Example([7, 8, 9], [4])] * 16]
    found = pulls(model, examples)
    plain.copy_layers()
    loss, tokens = torch.zeros(()), 0
    for example in examples:
        logits = plain(input_ids=torch.tensor([example.input_ids]), labels=torch.tensor([example.labels])).logits
        loss = loss + cross_entropy(logits[0], torch.tensor(example.labels), reduction="sum")
        tokens += len(example.labels)
    (loss / tokens).backward()
    norms = {name: p.grad.abs().sum().item() for name, p in plain.named_parameters() if p.grad is not None}
    for group in ("encoder", "decoder", "embeddings"):
        assert found[group]["l1"] == pytest.approx(
            sum(n for name, n in norms.items() if group_of(name) == group), rel=1e-4
        )
    assert sum(part["parameters"] for part in found.values()) == sum(p.numel() for p in plain.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_copied_words(data: Path, tmp_path: Path) -> None:
    prepare({"held": TOY}, data, tmp_path)
    task = load_task(tmp_path / "held" / "task.yaml")
    record = task.records("test")[0]
    assert copy_share(task, record) == 1.0
    other = replace(record, target=f"{str(record.source).split()[0].upper()}, and what else")
    assert copy_share(task, other) == 0.25


def test_held_out_tasks_are_seen_by_no_start() -> None:
    assert not HELD_OUT.keys() & MINI.seen.keys()
    assert {cell.task for cell in MINI.cells} == HELD_OUT.keys()
    assert {cell.arm for cell in MINI.cells} == ARMS.keys()
    assert {cell.start for cell in MINI.cells} | {"t5gemma-10", "t5gemma2-10"} == STARTS.keys()


def test_every_arm_of_the_study_could_be_trained() -> None:
    columns, rows, total = outline(MINI)
    assert len(rows) == len(MINI.starts) + len({(cell.start, cell.arm) for cell in MINI.cells})
    assert all(len(row) == len(columns) for row in rows)
    assert "lm_novels_en" in total


def test_the_verb_runs_the_study(
    scale: Scale, data: Path, finished: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftlm.studies.steering.scale.SCALES", SCALES | {"tiny": scale})
    arguments = ["study", "steering", "--scale", "tiny", "--data", str(data), "--out", str(finished[0])]
    made = CliRunner().invoke(app, [*arguments, "--workers", "1"])
    assert made.exit_code == 0, made.exception
    assert f"{len(finished[1])} jobs" in made.output
