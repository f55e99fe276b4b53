"""What the steering study found: metrics of every run, and how much of what can be learnt each arm has learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from statistics import mean, median
from typing import Any

from graftlm.evaluation.compare import ALL_SCORES
from graftlm.evaluation.metrics.bootstrap import Metric, Score, interval, measure, resample
from graftlm.studies.differences import Rows
from graftlm.studies.results import mean_points
from graftlm.studies.runs import Run
from graftlm.studies.search import Records
from graftlm.studies.steering.arms import EVERYTHING, UNTUNED, Cell
from graftlm.studies.steering.plan import SteeringPlan

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class SteeringRun(Run):
    """An arm on the test examples of its task."""

    def statistics(self, metric: str) -> Rows:
        """Of each example."""
        return [row["statistics"][metric] for row in self.tested["evaluation"]["rows"]]

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The task's, loss and source gain; the last also of the examples that copy least and most of the source."""
        names = self.tested["evaluation"]["metrics"]
        found = {name: measure(self.statistics(name), ALL_SCORES[name]) for name in names}
        copied, gains = self.tested["copied"], self.statistics("source_gain")
        middle = median(copied)
        parts = {
            "source_gain, least copying": [row for row, share in zip(gains, copied, strict=True) if share <= middle],
            "source_gain, most copying": [row for row, share in zip(gains, copied, strict=True) if share > middle],
        }
        return found | {name: measure(rows, ALL_SCORES["source_gain"]) for name, rows in parts.items() if rows}

    @property
    def source_gains(self) -> Points:
        """In validation, after updates."""
        return [(entry["step"], entry["source_gain"]) for entry in self.trained["run"]["validation"]]

    def row(self, scale: str) -> dict[str, Any]:
        """With start and task, the share of copying that the task needs, and the source gain during training."""
        curve = {"source_gain": self.source_gains} if "run" in self.trained else {}
        names = dict(zip(("start", "task", "arm"), self.job.arm_name.split("."), strict=True))
        return super().row(scale) | names | {"copied": mean(self.tested["copied"])} | curve


def runs_of(plan: SteeringPlan, done: Records) -> dict[Cell, list[SteeringRun]]:
    """The runs that count of every cell, as far as they have ended, in order of their seeds."""
    found: dict[Cell, list[SteeringRun]] = {}
    for cell in plan.scale.cells:
        ended = [job for job in plan.finals(cell, done) if job.name in done]
        if ended:
            found[cell] = [SteeringRun(job, done[job.name], done[job.name]) for job in ended]
    return found


def summaries(plan: SteeringPlan, runs: Mapping[Cell, Sequence[SteeringRun]]) -> list[dict[str, Any]]:
    """Of every cell: means over seeds, and the share of what tuning everything gains that it gains."""
    found = []
    for cell, cell_runs in runs.items():
        counts = plan.scale.held_out[cell.task].metrics[0]
        summary: dict[str, Any] = {
            "start": cell.start,
            "task": cell.task,
            "arm": cell.arm,
            "title": plan.scale.arms[cell.arm].title,
            "seeds": len(cell_runs),
            "rate": cell_runs[0].job.rate,
            "metric": counts,
            "metrics": {name: mean(run.metrics[name].value for run in cell_runs) for name in cell_runs[0].metrics},
            "copied": mean(cell_runs[0].tested["copied"]),
        }
        if cell.arm == UNTUNED:
            summary["pulls"] = cell_runs[0].tested["pulls"]
        else:
            summary["parameters"] = cell_runs[0].trained["run"]["parameters"]["trainable"]
            summary["source_gains"] = mean_points([run.source_gains for run in cell_runs])
            ends = [runs.get(Cell(start=cell.start, task=cell.task, arm=arm), ()) for arm in (UNTUNED, EVERYTHING)]
            if cell.arm != EVERYTHING and all(ends):
                statistics = ([run.statistics(counts) for run in some] for some in (*ends, cell_runs))
                summary["kept"] = share_kept(*statistics, score=ALL_SCORES[counts])
        found.append(summary)
    return found


def share_kept(
    untuned: Sequence[Rows], everything: Sequence[Rows], runs: Sequence[Rows], *, score: Score
) -> dict[str, float] | None:
    """(arm - un-tuned) / (everything - un-tuned), of mean metrics over seeds, with its 95 % interval over examples.

    None where tuning everything gains nothing, in all or in one of the resampled sets of examples.
    Source: paired bootstrap resampling, Koehn 2004 (W04-3250), section 4.
    """
    columns = [*untuned, *everything, *runs]
    width, first, last = len(columns[0][0]), len(untuned), len(untuned) + len(everything)
    joined = [[number for rows in columns for number in rows[i]] for i in range(len(columns[0]))]

    def share(sums: list[float]) -> float:
        scores = [score(sums[start : start + width]) for start in range(0, len(sums), width)]
        low, high = mean(scores[:first]), mean(scores[first:last])
        return (mean(scores[last:]) - low) / (high - low) if high > low else nan

    value = share([sum(column) for column in zip(*joined, strict=True)])
    shares = resample(joined, share)
    if any(map(isnan, (value, *shares))):
        return None
    low, high = interval(shares)
    return {"value": value, "low": low, "high": high}
