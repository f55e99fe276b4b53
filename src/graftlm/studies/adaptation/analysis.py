"""What the adaptation study found: metrics of every run, how soon they came, and differences between arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any

from graftlm.evaluation.loss import per_token
from graftlm.evaluation.metrics.bootstrap import Metric, measure
from graftlm.studies.adaptation.arms import BASE, Arm
from graftlm.studies.differences import difference
from graftlm.studies.runs import Run
from graftlm.studies.search import best_loss

METRICS = ("loss", "source_gain")
LAST = 0.1
"""Part of the training losses, the last, whose mean is the loss of an arm's own objective."""

Points = Sequence[Sequence[float]]


@dataclass(frozen=True)
class AdaptationRun(Run):
    """A trained model on all test examples."""

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Loss and source gain by PrefixLM."""
        return {name: measure(self.tested["statistics"][name], per_token) for name in METRICS}

    @property
    def own_loss(self) -> float:
        """By the arm's own objective: on the texts of the last updates, each before it was trained on."""
        losses = [loss for _, loss in self.trained["run"]["losses"]]
        return mean(losses[-max(1, round(LAST * len(losses))) :])

    def curve(self, metric: str) -> Points:
        """Validation by PrefixLM after updates, with that before any."""
        start, shares = self.trained["start"], self.trained["run"]["mixture"]
        before = start["losses" if metric == "loss" else "source_gains"]
        begin = sum(shares[name]["rate"] * value for name, value in before.items())
        return [[0, begin], *([entry["step"], entry[metric]] for entry in self.trained["run"]["validation"])]

    def row(self, scale: str) -> dict[str, Any]:
        """With the loss of its own objective and both curves."""
        curves = {"validation": self.curve("loss"), "source_gain": self.curve("source_gain")}
        return super().row(scale) | {"own_loss": self.own_loss} | curves


def thresholds(runs: Mapping[str, Sequence[AdaptationRun]], early: float) -> dict[str, float]:
    """Validation losses to be reached: the early one, and the mean of the base arm's lowest ones where it has any."""
    base = [best_loss(run.trained) for run in runs.get(BASE, ())]
    return {"early": early} | ({BASE: mean(base)} if base else {})


def updates_to(curve: Points, threshold: float) -> int | None:
    """The first update after which validation found at most this loss; None for none.

    >>> updates_to([[0, 6.0], [50, 5.0], [100, 5.5]], 5.0)
    50
    """
    return next((int(step) for step, loss in curve if loss <= threshold), None)


def summaries(
    runs: Mapping[str, Sequence[AdaptationRun]], arms: Mapping[str, Arm], to_reach: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Of every arm: means over seeds, updates to each threshold by seed, and differences from its reference."""
    found: dict[str, dict[str, Any]] = {}
    for name, arm_runs in runs.items():
        arm = arms[name]
        found[name] = {
            "title": arm.title,
            "question": arm.question,
            "reference": arm.reference,
            "seeds": len(arm_runs),
            "rate": arm_runs[-1].job.rate,
            "metrics": {metric: mean(run.metrics[metric].value for run in arm_runs) for metric in METRICS},
            "own_loss": mean(run.own_loss for run in arm_runs),
            "validation_loss": mean(best_loss(run.trained) for run in arm_runs),
            "updates_to": {
                to: [updates_to(run.curve("loss"), loss) for run in arm_runs] for to, loss in to_reach.items()
            },
        }
        others = {run.job.seed: run for run in runs.get(arm.reference, ())}
        pairs = [(others[run.job.seed], run) for run in arm_runs if run.job.seed in others]
        if pairs and arm.reference != name:
            found[name]["difference"] = {metric: _difference(pairs, metric) for metric in METRICS}
    return found


def _difference(pairs: Sequence[tuple[AdaptationRun, AdaptationRun]], metric: str) -> dict[str, Any]:
    first, second = ([run.tested["statistics"][metric] for run in side] for side in zip(*pairs, strict=True))
    return difference(first, second, per_token)
