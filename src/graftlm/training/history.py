"""What a run has measured so far: kept in its checkpoints, and at the end in its record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graftlm.errors import TrainingError

EVERY = 10
"""Updates whose training losses are one mean in the record."""


@dataclass
class History:
    """Losses in nats per target token, by update."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    """(update, mean training loss of the updates since the entry before)."""
    pending: list[float] = field(default_factory=list)
    """Training losses of the updates since the last entry."""
    validation: list[dict[str, Any]] = field(default_factory=list)
    """{"step", "loss", "tasks": {name: loss}, "source_gain", "source_gains": {name: gain}}; `loss` and `source_gain`
    are the tasks' means, weighted by their rates. Tasks of one source have no gain, and None is that of such alone."""
    best: dict[str, Any] | None = None
    """The entry of `validation` with the lowest loss."""
    lately: list[tuple[float, float]] = field(default_factory=list)
    """(training loss, gradient norm) of the last updates that were made, for their medians."""
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """{"step", "fault", "examples"} of updates that were left out."""
    seconds: float = 0.0
    """Of training, validation included."""
    validation_seconds: float = 0.0
    resumed_at: list[int] = field(default_factory=list)

    def add_loss(self, step: int, loss: float) -> None:
        """Note the training loss of an update, unless it was left out."""
        if not self.skipped or self.skipped[-1]["step"] != step:
            self.pending.append(loss)
        if step % EVERY == 0:
            self.flush(step)

    def flush(self, step: int) -> None:
        """Make an entry of the losses that wait for one."""
        if self.pending:
            self.losses.append((step, math.fsum(self.pending) / len(self.pending)))
            self.pending = []

    def add_validation(
        self, step: int, tasks: Mapping[str, float], gains: Mapping[str, float], rates: Mapping[str, float]
    ) -> bool:
        """Note the validation losses and source gains of some tasks; True when their mean loss is the lowest so far.

        Raises: TrainingError when it is not finite.
        """
        entry = validated(tasks, gains, rates)
        loss = entry["loss"]
        if not math.isfinite(loss):
            raise TrainingError(
                f"The validation loss is {loss} at update {step}, so training stopped; "
                "start anew with a lower learning rate."
            )
        self.validation.append({"step": step, **entry})
        if self.best is not None and loss >= self.best["loss"]:
            return False
        self.best = self.validation[-1]
        return True


def validated(tasks: Mapping[str, float], gains: Mapping[str, float], rates: Mapping[str, float]) -> dict[str, Any]:
    """Losses and source gains of some tasks with their means, as History.validation has them."""
    return {
        "loss": _mean(tasks, rates),
        "tasks": dict(tasks),
        "source_gain": _mean(gains, rates) if gains else None,
        "source_gains": dict(gains),
    }


def _mean(tasks: Mapping[str, float], rates: Mapping[str, float]) -> float:
    return sum(rates[name] * value for name, value in tasks.items()) / sum(rates[name] for name in tasks)
