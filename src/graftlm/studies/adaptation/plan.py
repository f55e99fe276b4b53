"""What is to be done in the adaptation study, in order: of each arm a rate search on one seed, all seeds, tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from graftlm.studies.adaptation.scale import Scale
from graftlm.studies.adaptation.work import Measure, Train
from graftlm.studies.jobs import Job
from graftlm.studies.search import Records, finals, jobs_of_arm


@dataclass(frozen=True)
class AdaptationPlan:
    """The jobs of a scale on the data in a folder."""

    scale: Scale
    data: Path

    def __call__(self, done: Records) -> Sequence[Job]:
        """Jobs that can begin, or have ended, given the records of those that have ended."""
        return [
            job
            for name in self.scale.arms
            for job in jobs_of_arm(self._search(name), self.finals(name, done), lambda job: Measure(trained=job), done)
        ]

    def finals(self, name: str, done: Records) -> list[Train]:
        """The training jobs of an arm that count: all seeds at the rate that was found; none before it is."""
        return finals(self._search(name), partial(self._train, name), self.scale.seeds, done)

    def _search(self, name: str) -> list[Train]:
        return [self._train(name, self.scale.seeds[0], rate) for rate in self.scale.budget.rates]

    def _train(self, name: str, seed: int, rate: float) -> Train:
        arm = self.scale.arms[name]
        return Train(arm_name=name, arm=arm, scale=self.scale, data=self.data, seed=seed, rate=rate)
