"""The mean of the last weights: what it is, that it replaces the best, and that it survives a stop anywhere."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import tiny
from graftlm.data.collate import Example
from graftlm.data.mixture import Mixture
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.checkpoint import RunFolder
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune
from graftlm.training.validation import validation_losses
from updates import Killed, die, on_update, press_ctrl_c

MIXTURE = Mixture.of(
    {
        "a": [Example([1, 5 + i, 9], [20 + i, 7, 2]) for i in range(8)],
        "b": [Example([1, 30 + i % 5] * (1 + i % 3), [4, 5 + i % 9, 2]) for i in range(32)],
    }
)
VALIDATION = {name: rows[:5] for name, rows in MIXTURE.examples.items()}
SETTINGS = TuneSettings(steps=14, batch_size=4, learning_rate=1e-2, warmup_steps=2, eval_every=4, average=3)
QUIET = Console(quiet=True)


def run(model: GraftForConditionalGeneration, **more: Any) -> dict[str, Any]:
    settings = more.pop("settings", SETTINGS)
    return tune(model, MIXTURE, settings, QUIET, **{"validation": VALIDATION} | more)


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_run_ends_with_the_mean(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    model, seen = tiny.graft().to(dtype), {}
    on_update(monkeypatch, lambda step: seen.update({step: weights(model)}))
    record = run(model)
    assert record["average"]["steps"] == [8, 12, 14]
    for name, tensor in weights(model).items():
        mean = (seen[8][name].double() + seen[12][name].double() + seen[14][name].double()) / 3
        assert torch.equal(tensor, mean.to(dtype)), name
        assert name.startswith("encoder.") or torch.equal(tensor, seen[14][name])


def test_the_mean_is_validated_and_replaces_the_best() -> None:
    model = tiny.graft()
    record = run(model)
    assert record["best"] is None
    assert [entry["step"] for entry in record["validation"]] == [4, 8, 12, 14]
    tasks = validation_losses(model, VALIDATION, 4)
    assert record["average"]["tasks"] == pytest.approx(tasks, rel=2e-2)  # training's precision may be bf16
    assert record["average"]["loss"] == pytest.approx(
        sum(MIXTURE.rates[n] * loss for n, loss in tasks.items()), rel=2e-2
    )
    assert record["average"]["loss"] not in [entry["loss"] for entry in record["validation"]]
    unseen = run(again := tiny.graft(), validation=None)
    assert unseen["average"] == {"steps": [8, 12, 14], "loss": None, "tasks": None}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert run(tiny.graft(), settings=dataclasses.replace(SETTINGS, average=None))["average"] is None


@pytest.mark.parametrize("dies_after", [7, 9, 13])
def test_a_killed_run_ends_with_the_same_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after: int) -> None:
    expected = run(whole := tiny.graft())
    folder = RunFolder(tmp_path / "run", {})
    with monkeypatch.context() as patch:
        die(patch, dies_after)
        with pytest.raises(Killed):
            run(tiny.graft(), run_folder=folder)
    found = run(resumed := tiny.graft(), run_folder=folder, resume=folder.last())
    assert found["average"] == expected["average"]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    # Killed once more, when only what comes after the last update was missing.
    points = [f"point-{step:08d}" for step in (8, 12, 14)]
    assert {path.name for path in folder.path.iterdir()} >= {*points, "step-00000014"}
    assert run(again := tiny.graft(), run_folder=folder, resume=folder.last())["average"] == expected["average"]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    folder.check()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run", {})
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 13)
        stopped = run(model := tiny.graft(), run_folder=folder)
    assert stopped["interrupted_at"] == 13
    assert stopped["average"] is None
    assert stopped["best"] == min(stopped["validation"], key=lambda entry: entry["loss"])
    whole = run(tiny.graft())
    found = run(model := tiny.graft(), run_folder=folder, resume=folder.last())
    assert found["average"] == whole["average"]
    assert model.training is False
