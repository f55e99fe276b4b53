"""What the bridge study found: metrics of every run, differences between arms, and what was too small to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, median
from typing import Any

from graftlm.evaluation.compare import ALL_SCORES
from graftlm.evaluation.metrics.bootstrap import Metric, measure
from graftlm.studies import differences
from graftlm.studies.bridge.arms import BASE, Arm
from graftlm.studies.bridge.plan import BridgePlan
from graftlm.studies.bridge.work import Train, Translate
from graftlm.studies.differences import Rows
from graftlm.studies.search import Records, best_loss

METRICS = ("bleu", "chrf", "loss", "source_gain")


@dataclass(frozen=True)
class Run:
    """A trained model on all its test sentences."""

    job: Train
    trained: dict[str, Any]
    translated: dict[str, Any]

    @cached_property
    def words(self) -> list[int]:
        """Of each source."""
        return [number for task in self.translated["source_words"] for number in task]

    def statistics(self, metric: str) -> Rows:
        """Of each sentence, all test sets one after the other."""
        return [row["statistics"][metric] for task in self.translated["evaluations"] for row in task["rows"]]

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Of all test sentences together; BLEU also of each set, and of short and long sentences."""
        found = {name: measure(self.statistics(name), ALL_SCORES[name]) for name in METRICS}
        rows, middle = self.statistics("bleu"), median(self.words)
        parts = {
            "short": [row for row, words in zip(rows, self.words, strict=True) if words <= middle],
            "long": [row for row, words in zip(rows, self.words, strict=True) if words > middle],
        }
        if len(self.translated["evaluations"]) > 1:
            for task in self.translated["evaluations"]:
                parts[task["task"]] = [row["statistics"]["bleu"] for row in task["rows"]]
        return found | {f"bleu, {part}": measure(rows, ALL_SCORES["bleu"]) for part, rows in parts.items() if rows}


def runs_of(plan: BridgePlan, done: Records) -> dict[str, list[Run]]:
    """The runs that count of every arm that has ended, in order of their seeds."""
    found: dict[str, list[Run]] = {}
    jobs = [job for job in plan(done) if isinstance(job, Translate) and job.name in done]
    for job in jobs:
        trained = job.trained
        found.setdefault(trained.arm_name, []).append(Run(trained, done[trained.name], done[job.name]))
    for runs in found.values():
        runs.sort(key=lambda run: run.job.seed)
    return found


def result_rows(runs: Mapping[str, Sequence[Run]], scale: str) -> list[dict[str, Any]]:
    """A row for each run: arm, seed, scale, metrics with intervals over sentences, learning rate and losses."""
    return [
        {
            "arm": name,
            "seed": run.job.seed,
            "scale": scale,
            "rate": run.job.rate,
            "parameters": run.trained["run"]["parameters"]["trainable"],
            "validation_loss": best_loss(run.trained),
            "metrics": {metric: value.to_dict() for metric, value in run.metrics.items()},
            "validation": [[entry["step"], entry["loss"]] for entry in run.trained["run"]["validation"]],
            "training": run.trained["run"]["losses"],
            "bridge": run.trained["run"].get("bridge"),
        }
        for name, arm_runs in runs.items()
        for run in arm_runs
    ]


def summaries(runs: Mapping[str, Sequence[Run]], arms: Mapping[str, Arm]) -> dict[str, dict[str, Any]]:
    """Of every arm: means over seeds, and how its BLEU and chrF differ from those of the arm it is compared with."""
    found: dict[str, dict[str, Any]] = {}
    for name, arm_runs in runs.items():
        values = [run.metrics for run in arm_runs]
        summary: dict[str, Any] = {
            "seeds": len(arm_runs),
            "rate": arm_runs[-1].job.rate,
            "metrics": {metric: mean(value[metric].value for value in values) for metric in values[0]},
            "validation_loss": mean(best_loss(run.trained) for run in arm_runs),
        }
        reference = runs.get(arms[name].reference, ()) if name != BASE else ()
        if name != BASE and arms[name].reference != name and len(reference) == len(arm_runs):
            summary["reference"] = arms[name].reference
            summary["difference"] = {
                metric: difference(reference, arm_runs, metric) for metric in ("bleu", "chrf", "loss")
            }
        found[name] = summary
    return found


def difference(reference: Sequence[Run], runs: Sequence[Run], metric: str) -> dict[str, Any]:
    """How a metric of an arm's runs differs from that of its reference's; see differences.difference."""
    first, second = ([run.statistics(metric) for run in side] for side in (reference, runs))
    return differences.difference(first, second, ALL_SCORES[metric])


def smallest_difference(found: Mapping[str, dict[str, Any]], metric: str = "bleu") -> float | None:
    """The smallest true difference between two arms that the study would find; see differences.smallest_difference."""
    return differences.smallest_difference(
        summary["difference"][metric] for summary in found.values() if "difference" in summary
    )
