"""What is to be done in the bridge study, in order: base, rate search on one seed, all seeds, translations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

from graftlm.studies.bridge.arms import BASE, BASE_ARM, BRIDGES, SCRATCH, STACKED, TUNED, UNFROZEN, Arm, further
from graftlm.studies.bridge.scale import Scale
from graftlm.studies.bridge.work import Train, Translate
from graftlm.studies.jobs import Job
from graftlm.studies.search import Records, best_loss, finals, jobs_of_arm


@dataclass(frozen=True)
class BridgePlan:
    """The jobs of a scale on the data in a folder."""

    scale: Scale
    data: Path

    def __call__(self, done: Records) -> Sequence[Job]:
        """Jobs that can begin, or have ended, given the records of those that have ended."""
        jobs: list[Job] = []
        ready = True
        if self.scale.base is not None:
            [rate] = self.scale.rates(BASE, BASE_ARM)
            base = self._train(BASE, BASE_ARM, 0, rate)
            ready = base.name in done
            jobs += [base, Translate(trained=base)] if ready else [base]
        for name, arm in self.arms(done).items():
            if arm.scratch or ready:
                jobs += self._of_arm(name, arm, done)
        return jobs

    def arms(self, done: Records) -> dict[str, Arm]:
        """All arms, those of the best bridge as soon as it is known."""
        if self.scale.arms is not None:
            return dict(self.scale.arms)
        arms = TUNED | SCRATCH | UNFROZEN | STACKED
        best = self.best_bridge(done)
        return arms if best is None else arms | further(best)

    def best_bridge(self, done: Records) -> str | None:
        """The fine-tuned bridge of the lowest mean validation loss, once all seeds of all are done."""
        losses: dict[str, float] = {}
        for name, arm in BRIDGES.items():
            finals = self.finals(name, arm, done)
            if not finals or any(job.name not in done for job in finals):
                return None
            losses[name] = mean(best_loss(done[job.name]) for job in finals)
        return min(losses, key=lambda name: losses[name])

    def finals(self, name: str, arm: Arm, done: Records) -> list[Train]:
        """The training jobs that count: all seeds at the rate that was found; none before it is."""
        make = partial(self._train, name, arm)
        return finals(list(self._search(name, arm, done)), make, self.scale.seeds, done)

    def _of_arm(self, name: str, arm: Arm, done: Records) -> list[Job]:
        search = [] if arm.rate_of else list(self._search(name, arm, done))
        return jobs_of_arm(search, self.finals(name, arm, done), lambda job: Translate(trained=job), done)

    def _search(self, name: str, arm: Arm, done: Records) -> Iterator[Train]:
        seed = self.scale.seeds[0]
        if arm.rate_of is None:
            yield from (self._train(name, arm, seed, rate) for rate in self.scale.rates(name, arm))
        else:
            yield from self.finals(arm.rate_of, TUNED[arm.rate_of], done)[:1]

    def _train(self, name: str, arm: Arm, seed: int, rate: float) -> Train:
        return Train(arm_name=name, arm=arm, scale=self.scale, data=self.data, seed=seed, rate=rate)
