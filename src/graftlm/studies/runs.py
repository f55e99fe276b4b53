"""A run: what a training job of an arm came to, with what was found of it on test examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.studies.jobs import Job, Record
from graftlm.studies.search import Records, best_loss
from graftlm.studies.training import AfterTraining, ArmTraining


@dataclass(frozen=True)
class Run(ABC):
    """One arm with one seed, at the learning rate that was found."""

    job: ArmTraining
    trained: Record
    tested: Record

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """On the test examples."""

    def row(self, scale: str) -> dict[str, Any]:
        """What results say of it: arm, seed, scale, metrics with intervals over examples, learning rate and losses.

        An arm that trains nothing has neither rate nor losses.
        """
        found = {"arm": self.job.arm_name, "seed": self.job.seed, "scale": scale}
        metrics = {"metrics": {metric: value.to_dict() for metric, value in self.metrics.items()}}
        if "run" not in self.trained:
            return found | metrics
        run = {
            "rate": self.job.rate,
            "parameters": self.trained["run"]["parameters"]["trainable"],
            "validation_loss": best_loss(self.trained),
            "training": self.trained["run"]["losses"],
        }
        return found | metrics | run


AnyRun = TypeVar("AnyRun", bound=Run)


def runs_of(kind: type[AnyRun], jobs: Sequence[Job], done: Records) -> dict[str, list[AnyRun]]:
    """The runs of every arm, as far as they were tested, in order of their seeds."""
    found: dict[str, list[AnyRun]] = {}
    for job in jobs:
        if isinstance(job, AfterTraining) and job.name in done:
            run = kind(job.trained, done[job.trained.name], done[job.name])
            found.setdefault(job.trained.arm_name, []).append(run)
    for runs in found.values():
        runs.sort(key=lambda run: run.job.seed)
    return found


def result_rows(runs: Mapping[str, Sequence[Run]], scale: str) -> list[dict[str, Any]]:
    """A row for each run."""
    return [run.row(scale) for arm_runs in runs.values() for run in arm_runs]
