"""What arms come to over seeds, and the committed results of those that the demo does not run itself."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""97.5 % quantile of Student's t for a mean of so many seeds."""
COMMITTED = "assets/demo_arms.json"

Summary = dict[str, Any]
"""{"seeds", "parameters", "bytes", "metrics": {name: {"value", "low", "high"}}} of one arm on one task."""


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Summary]]:
    """Task -> arm -> means over seeds with the 95 % interval of the mean; of one seed, the interval over examples.

    Source: Student's t interval for the mean, with as many degrees of freedom as seeds less one.
    """
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        groups.setdefault(row["task"], {}).setdefault(row["arm"], []).append(row)
    return {task: {arm: _summary(found) for arm, found in arms.items()} for task, arms in groups.items()}


def committed() -> dict[str, dict[str, Summary]]:
    """The summaries that are shipped: of all arms, made by benchmarks/arms.py."""
    path = files("graftlm")
    for part in COMMITTED.split("/"):
        path = path / part
    values: dict[str, dict[str, Summary]] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _summary(rows: list[Mapping[str, Any]]) -> Summary:
    metrics = {name: _mean([row["metrics"][name] for row in rows]) for name in rows[0]["metrics"]}
    first = rows[0]
    return {"seeds": len(rows), "parameters": first["parameters"], "bytes": first["bytes"], "metrics": metrics}


def _mean(metrics: list[Mapping[str, float]]) -> dict[str, float]:
    if len(metrics) == 1:
        return {name: metrics[0][name] for name in ("value", "low", "high")}
    values = [metric["value"] for metric in metrics]
    mean = statistics.fmean(values)
    half = STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return {"value": mean, "low": mean - half, "high": mean + half}
