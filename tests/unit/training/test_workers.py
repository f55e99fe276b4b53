"""Batches made by worker processes: the same run bit for bit, and an end in every case."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import tiny
from graftlm.data.collate import Example
from graftlm.data.deferred import Deferred
from graftlm.data.texts import Documents
from graftlm.errors import ConfigError, TaskError, TrainingError
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.objectives.frame import Frame
from graftlm.objectives.span_corruption import SpanCorruption
from graftlm.objectives.text_examples import TextExamples
from graftlm.training.checkpoint import RunFolder
from graftlm.training.history import History
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune
from graftlm.training.upkeep import Upkeep

SETTINGS = TuneSettings(steps=8, batch_size=4, learning_rate=1e-2, warmup_steps=1, eval_every=2)
FRAME = Frame(source_start=(1,), target_end=(2,), sentinels=tuple(range(30, 39)), source_length=9, target_length=9)


def text() -> TextExamples:
    ids = np.random.default_rng(0).integers(3, 30, 400).astype(np.int32)
    return TextExamples(Documents(ids, np.arange(0, 401, 50)), SpanCorruption(rate=0.3, mean_length=1), FRAME, seed=0)


def run(workers: int, examples: Any = None, **more: Any) -> tuple[GraftForConditionalGeneration, dict[str, Any]]:
    model = tiny.graft()
    examples = text() if examples is None else examples
    record = tune(model, examples, SETTINGS, Console(quiet=True), "t", upkeep=Upkeep(workers=workers), **more)
    assert multiprocessing.active_children() == []
    return model, record


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """As a terminal does, send Ctrl-C to this process and its workers once `step` updates are done."""
    add = History.add_loss

    def note(self: History, at: int, loss: float) -> None:
        add(self, at, loss)
        if at == step:
            for process in [*(child.pid for child in multiprocessing.active_children()), os.getpid()] * times:
                assert process is not None
                os.kill(process, signal.SIGINT)

    monkeypatch.setattr(History, "add_loss", note)


@pytest.mark.parametrize("step", [3, 4])
def test_workers_change_nothing_and_runs_go_on_exactly(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, record = run(0)
    model, found = run(2)
    folder = RunFolder(tmp_path / "run", {})
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        assert run(2, run_folder=folder)[1]["interrupted_at"] == step
    # The number of workers is none of what a run is.
    resumed, went_on = run(1, run_folder=folder, resume=folder.last_whole())
    assert went_on["resumed_at"] == [step]
    assert record["losses"] == found["losses"] == went_on["losses"]
    for other in (model, resumed):
        for name, tensor in expected.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_second_interrupt_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(3, monkeypatch, times=2)
    with pytest.raises(KeyboardInterrupt):
        run(2, run_folder=RunFolder(tmp_path / "run", {}))
    monkeypatch.undo()
    assert multiprocessing.active_children() == []


def fails(number: int) -> Example:
    if number == 5:
        raise TaskError("Row 6: it is of no use; mend it.")
    return Example([1, 5 + number, 9], [20 + number, 2])


def dies(number: int) -> Example:
    if number == 5 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return Example([1, 5 + number, 9], [20 + number, 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_is_one_sentence(workers: int) -> None:
    with pytest.raises(TaskError) as raised:
        run(workers, [Deferred(fails, number, (3, 2)) for number in range(12)])
    assert str(raised.value) == "Row 6: it is of no use; mend it."


def test_a_worker_that_is_killed_is_said() -> None:
    with pytest.raises(TrainingError, match="worker that makes batches was killed") as raised:
        run(2, [Deferred(dies, number, (3, 2)) for number in range(12)])
    assert "\n" not in str(raised.value)


def test_fewer_than_none() -> None:
    with pytest.raises(ConfigError, match="workers is -1"):
        Upkeep(workers=-1)
