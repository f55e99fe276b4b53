"""Looks after a run: notes losses, validates, keeps the best weights, writes checkpoints, and stops on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from graftlm.data.collate import Example
from graftlm.training.checkpoint import RunFolder, restore_weights, save_weights
from graftlm.training.history import History, validated
from graftlm.training.ranks import any_of_them, first_says
from graftlm.training.settings import BATCH_SIZE, TuneSettings
from graftlm.training.trainer import bf16_pays
from graftlm.training.validation import source_gains, validation_losses

Report = Callable[[dict[str, Any]], None]
"""Called with each entry of History.validation."""


class RunKeeper(TrainerCallback):
    """At the updates that the settings name and after the last it validates, where there is data, and writes a
    checkpoint, where there is a run folder. It keeps the weights that the settings average."""

    def __init__(
        self,
        history: History,
        settings: TuneSettings,
        *,
        validation: Mapping[str, Sequence[Example]],
        rates: Mapping[str, float],
        folder: RunFolder | None,
        scratch: Path,
        stop: Callable[[], bool],
        report: Report,
    ) -> None:
        self.history = history
        self.interrupted_at: int | None = None
        self._every = settings.eval_every
        self._averaged = settings.averaged
        self._validation = validation
        self._rates = rates
        self._folder = folder
        self._scratch = scratch
        self._batch_size = settings.batch_size or BATCH_SIZE
        self._stop = stop
        self._report = report
        self._clock = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._clock = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        # The Trainer logs once per update, after the update and its step of the schedule.
        if logs is None or "loss" not in logs:
            return
        step, model = state.global_step, kwargs["model"]
        self.history.add_loss(step, logs["loss"])
        due = (self._every > 0 and step % self._every == 0) or step == state.max_steps
        stopping = any_of_them(self._stop(), args.device) and step < state.max_steps
        if due and self._validation:
            self._validate(step, model)
        if step in self._averaged:
            save_weights(model, self._point(step))
        self._tick()
        if (due or stopping) and self._folder is not None:
            self._folder.save(model, kwargs["optimizer"], kwargs["lr_scheduler"], state, self.history)
        if stopping:
            self.interrupted_at = step
            control.should_training_stop = True

    def restore(self, model: Any, step: int) -> dict[str, Any]:
        """Put the weights that a run ends with after update `step` into `model`, and say which they are.

        Returns `best`, the entry of validation whose weights they are, and `average`, where they are a mean: its
        updates, with the loss of that mean. Both are None where they are the last.
        """
        best = self.history.best
        if self._averaged and step == self._averaged[-1]:
            return {"best": None, "average": self._average(model)}
        if best is not None:
            restore_weights(model, self._best(best["step"]))
        return {"best": best, "average": None}

    def _average(self, model: Any) -> dict[str, Any]:
        restore_weights(model, *map(self._point, self._averaged))
        entry: dict[str, Any] = {"steps": list(self._averaged), "loss": None, "tasks": None}
        if self._validation:
            # The Trainer, which computes in bf16 where that pays, is done with the model.
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16_pays()):
                entry |= validated(*self._measure(model), self._rates)
        return entry

    def _measure(self, model: Any) -> tuple[dict[str, float], dict[str, float]]:
        losses = validation_losses(model, self._validation, self._batch_size)
        return losses, source_gains(model, self._validation, losses, self._batch_size)

    def _validate(self, step: int, model: Any) -> None:
        start = time.perf_counter()
        losses, gains = first_says(self._measure(model))
        self.history.validation_seconds += time.perf_counter() - start
        if self.history.add_validation(step, losses, gains, self._rates):
            save_weights(model, self._best(step))
        self._report(self.history.validation[-1])

    def _best(self, step: int) -> Path:
        return self._scratch / "best" if self._folder is None else self._folder.best(step)

    def _point(self, step: int) -> Path:
        return self._scratch / f"point-{step}" if self._folder is None else self._folder.point(step)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.history.seconds += now - self._clock
        self._clock = now
