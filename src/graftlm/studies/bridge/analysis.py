"""What the bridge study found: metrics of every run, differences between arms, and what was too small to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from statistics import mean, median, variance
from typing import Any

from graftlm.evaluation.compare import ALL_SCORES
from graftlm.evaluation.metrics.bootstrap import Metric, interval, measure, resample
from graftlm.studies.bridge.arms import BASE, Arm
from graftlm.studies.bridge.plan import BridgePlan, best_loss
from graftlm.studies.bridge.work import Train, Translate

METRICS = ("bleu", "chrf", "loss", "source_gain")
POWER = 1.96 + 0.84
"""Standard errors of a difference that is found four times out of five, at the 5 % level."""

Records = Mapping[str, dict[str, Any]]
Rows = Sequence[Sequence[float]]


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
            "training": _every_tenth(run.trained["run"]["losses"]),
            "bridge": run.trained["run"].get("bridge"),
        }
        for name, arm_runs in runs.items()
        for run in arm_runs
    ]


def _every_tenth(losses: Sequence[Sequence[float]]) -> list[list[float]]:
    """Means over ten updates each, so that curves can be read and files stay small."""
    groups = [losses[start : start + 10] for start in range(0, len(losses), 10)]
    return [[group[-1][0], round(mean(loss for _, loss in group), 4)] for group in groups]


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
    """Mean over seeds of an arm's metric less that of its reference, which had the same data in the same order.

    `low` and `high` bound it over test sentences, resampled as pairs with all seeds together; `seeds` are the single
    differences, whose spread says what training by chance does.
    Source: paired bootstrap resampling, Koehn 2004 (W04-3250), section 4.
    """
    score = ALL_SCORES[metric]
    sides = [[run.statistics(metric) for run in side] for side in (reference, runs)]
    width = len(sides[0][0][0])
    columns = [*sides[0], *sides[1]]
    joined = [[number for rows in columns for number in rows[i]] for i in range(len(columns[0]))]

    def mean_difference(sums: list[float]) -> float:
        scores = [score(sums[start : start + width]) for start in range(0, len(sums), width)]
        half = len(scores) // 2
        return mean(scores[half:]) - mean(scores[:half])

    low, high = interval(resample(joined, mean_difference))
    by_seed = [
        score([sum(column) for column in zip(*b, strict=True)])
        - score([sum(column) for column in zip(*a, strict=True)])
        for a, b in zip(*sides, strict=True)
    ]
    return {"value": mean(by_seed), "low": low, "high": high, "seeds": by_seed}


def smallest_difference(found: Mapping[str, dict[str, Any]], metric: str = "bleu") -> float | None:
    """The smallest true difference between two arms that the study would find four times out of five.

    POWER standard errors; their square is that of sentences plus that of seeds, each averaged over all arms that have
    several seeds; None where no arm has.
    Source: normal approximation, Cohen 1988, section 2.2.
    """
    differences = [summary["difference"][metric] for summary in found.values() if "difference" in summary]
    several = [one for one in differences if len(one["seeds"]) > 1]
    if not several:
        return None
    seeds = mean(variance(one["seeds"]) / len(one["seeds"]) for one in several)
    sentences = mean(((one["high"] - one["low"]) / (2 * 1.96)) ** 2 for one in several)
    return POWER * sqrt(seeds + sentences)
