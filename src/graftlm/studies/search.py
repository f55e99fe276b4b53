"""Every arm gets the same chances: some learning rates on the first seed, then all seeds at the best of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from graftlm.studies.jobs import Job, Record

Records = Mapping[str, Record]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every arm of one kind gets. `settings` are fields of TuneSettings."""

    settings: Mapping[str, Any]
    rates: tuple[float, ...]
    """Learning rates that are tried on the first seed; the lowest validation loss decides."""


class Training(Job, Protocol):
    """A job that trains, and leaves the record of its run as `run`."""

    @property
    def rate(self) -> float:
        """Its learning rate."""


Trained = TypeVar("Trained", bound=Training)


def finals(
    search: Sequence[Trained], make: Callable[[int, float], Trained], seeds: Sequence[int], done: Records
) -> list[Trained]:
    """The training jobs that count, made of seed and rate: all seeds at the best rate of `search`; none before that."""
    if not search or any(job.name not in done for job in search):
        return []
    rate = min(search, key=lambda job: best_loss(done[job.name])).rate
    return [make(seed, rate) for seed in seeds]


def jobs_of_arm(
    search: Sequence[Trained], counting: Sequence[Trained], then: Callable[[Trained], Job] | None, done: Records
) -> list[Job]:
    """Search, then the jobs that count, each once; and what is to be done with those that have ended."""
    ended = [] if then is None else [then(job) for job in counting if job.name in done]
    return [*search, *(job for job in counting if job not in search), *ended]


def best_loss(record: Mapping[str, Any]) -> float:
    """Lowest validation loss of a training job's record."""
    return float(record["run"]["best"]["loss"])
