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
from graftlm.studies.differences import Rows
from graftlm.studies.runs import Run
from graftlm.studies.search import best_loss

METRICS = ("bleu", "chrf", "loss", "source_gain")


@dataclass(frozen=True)
class BridgeRun(Run):
    """A trained model on all its test sentences."""

    @cached_property
    def words(self) -> list[int]:
        """Of each source."""
        return [number for task in self.tested["source_words"] for number in task]

    def statistics(self, metric: str) -> Rows:
        """Of each sentence, all test sets one after the other."""
        return [row["statistics"][metric] for task in self.tested["evaluations"] for row in task["rows"]]

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Of all test sentences together; BLEU also of each set, and of short and long sentences."""
        found = {name: measure(self.statistics(name), ALL_SCORES[name]) for name in METRICS}
        rows, middle = self.statistics("bleu"), median(self.words)
        parts = {
            "short": [row for row, words in zip(rows, self.words, strict=True) if words <= middle],
            "long": [row for row, words in zip(rows, self.words, strict=True) if words > middle],
        }
        if len(self.tested["evaluations"]) > 1:
            for task in self.tested["evaluations"]:
                parts[task["task"]] = [row["statistics"]["bleu"] for row in task["rows"]]
        return found | {f"bleu, {part}": measure(rows, ALL_SCORES["bleu"]) for part, rows in parts.items() if rows}

    def row(self, scale: str) -> dict[str, Any]:
        """With validation losses, and what the bridge reads before and after training."""
        run = self.trained["run"]
        validation = [[entry["step"], entry["loss"]] for entry in run["validation"]]
        return super().row(scale) | {"validation": validation, "bridge": run.get("bridge")}


def summaries(runs: Mapping[str, Sequence[BridgeRun]], arms: Mapping[str, Arm]) -> dict[str, dict[str, Any]]:
    """Of every arm: means over seeds, and how its BLEU and chrF differ from those of the arm it is compared with."""
    found: dict[str, dict[str, Any]] = {}
    for name, arm_runs in runs.items():
        values = [run.metrics for run in arm_runs]
        summary: dict[str, Any] = {
            "tests": " and ".join(task["task"] for task in arm_runs[0].tested["evaluations"]),
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


def difference(reference: Sequence[BridgeRun], runs: Sequence[BridgeRun], metric: str) -> dict[str, Any]:
    """How a metric of an arm's runs differs from that of its reference's; see differences.difference."""
    first, second = ([run.statistics(metric) for run in side] for side in (reference, runs))
    return differences.difference(first, second, ALL_SCORES[metric])


def smallest_differences(found: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """The smallest difference in BLEU between arms that are tested on the same sets, by the names of these sets."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for name, summary in found.items():
        groups.setdefault(summary["tests"], {})[name] = summary
    values = {tests: smallest_difference(group) for tests, group in groups.items()}
    return {tests: value for tests, value in values.items() if value is not None}


def smallest_difference(found: Mapping[str, dict[str, Any]], metric: str = "bleu") -> float | None:
    """The smallest true difference between two arms that the study would find; see differences.smallest_difference."""
    return differences.smallest_difference(
        summary["difference"][metric] for summary in found.values() if "difference" in summary
    )
