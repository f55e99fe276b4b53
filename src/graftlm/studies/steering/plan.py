"""What is to be done in the steering study: adapt the starts, then of each cell a rate search and all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from graftlm.studies.jobs import Job
from graftlm.studies.search import Records, finals, jobs_of_arm
from graftlm.studies.steering.arms import ADAPTED, Cell
from graftlm.studies.steering.scale import Scale
from graftlm.studies.steering.work import Adapt, Tune


@dataclass(frozen=True)
class SteeringPlan:
    """The jobs of a scale on the task files in a folder."""

    scale: Scale
    tasks: Path

    def __call__(self, done: Records) -> Sequence[Job]:
        """Jobs that can begin, or have ended, given the records of those that have ended."""
        starts: list[Job] = [job for name in self.scale.starts for job in self._of_start(name, done)]
        return starts + [job for cell in self.scale.cells for job in self._of_cell(cell, done)]

    def start(self, name: str, done: Records) -> Adapt | None:
        """The job whose graft is the start; None before its learning rate is known."""
        if not self.scale.updates(name):
            return self._adapt(name, 0, 0.0)
        counting = finals(self._start_search(name, done), partial(self._adapt, name), (0,), done)
        return counting[0] if counting else None

    def finals(self, cell: Cell, done: Records) -> list[Tune]:
        """The jobs of a cell that count: all seeds at the rate that was found, or one where nothing is tuned."""
        start = self.start(cell.start, done)
        if start is None or start.name not in done:
            return []
        if self.scale.arms[cell.arm].settings is None:
            return [self._tune(cell, start, 0, 0.0)]
        return finals(self._search(cell, start, done), partial(self._tune, cell, start), self.scale.seeds, done)

    def searches(self, cell: Cell) -> bool:
        """Whether a cell searches a rate of its own; others take that of the same arm and task from ADAPTED."""
        return self._same(cell) not in self.scale.cells or cell.start == ADAPTED

    def _of_start(self, name: str, done: Records) -> list[Job]:
        start = self.start(name, done)
        searches = self.scale.starts[name].rate_of is None and self.scale.updates(name)
        own = self._start_search(name, done) if searches else []
        return jobs_of_arm(own, [start] if start else [], None, done)

    def _of_cell(self, cell: Cell, done: Records) -> list[Job]:
        start = self.start(cell.start, done)
        if start is None or start.name not in done:
            return []
        tuned = self.scale.arms[cell.arm].settings is not None
        own = self._search(cell, start, done) if tuned and self.searches(cell) else []
        return jobs_of_arm(own, self.finals(cell, done), None, done)

    def _start_search(self, name: str, done: Records) -> list[Adapt]:
        other = self.scale.starts[name].rate_of
        if other is None:
            return [self._adapt(name, 0, rate) for rate in self.scale.adaptation.rates]
        found = self.start(other, done)
        return [] if found is None else [found]

    def _search(self, cell: Cell, start: Adapt, done: Records) -> list[Tune]:
        if self.searches(cell):
            return [self._tune(cell, start, self.scale.seeds[0], rate) for rate in self.scale.tuning.rates]
        return self.finals(self._same(cell), done)[:1]

    def _same(self, cell: Cell) -> Cell:
        return Cell(start=ADAPTED, task=cell.task, arm=cell.arm)

    def _adapt(self, name: str, seed: int, rate: float) -> Adapt:
        start = self.scale.starts[name]
        return Adapt(arm_name=name, start=start, scale=self.scale, data=self.tasks, seed=seed, rate=rate)

    def _tune(self, cell: Cell, start: Adapt, seed: int, rate: float) -> Tune:
        return Tune(
            arm_name=cell.name, cell=cell, start=start.name, scale=self.scale, data=self.tasks, seed=seed, rate=rate
        )
