"""What every study leaves: results.json with what it was done with, and a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from graftlm.files import atomic_file, write_json
from graftlm.reports.page import Page
from graftlm.studies.search import Records
from graftlm.versions import machine, versions


def circumstances(scale: str, done: Records, *packages: str) -> dict[str, Any]:
    """Machine, versions of these packages too, scale, and how long all training took."""
    seconds = sum(record["run"]["seconds"] for record in done.values() if "run" in record)
    return {
        "machine": machine(),
        "versions": versions(*packages),
        "scale": scale,
        "training_seconds": round(seconds),
    }


def write_study(results: Mapping[str, Any], page: Callable[[Mapping[str, Any]], Page], out: Path) -> None:
    """Write results.json and report.html into `out`."""
    write_json(out / "results.json", dict(results))
    with atomic_file(out / "report.html") as file:
        file.write_text(page(results).html(), encoding="utf-8")


def mean_points(runs: Sequence[Sequence[Sequence[float]]]) -> list[tuple[int, float]]:
    """One curve of several runs with points (update, value) at the same updates: their means."""
    return [(int(points[0][0]), mean(value for _, value in points)) for points in zip(*runs, strict=True)]


def difference_text(difference: Mapping[str, Any], digits: int = 2) -> tuple[str, str]:
    """A difference with its interval, and those of its seeds.

    >>> difference_text({"value": 0.5, "low": 0.25, "high": 0.75, "seeds": [0.25, 0.75]})
    ('+0.50 (+0.25 to +0.75)', '+0.25 +0.75')
    """
    numbers = (difference["value"], difference["low"], difference["high"], *difference["seeds"])
    value, low, high, *seeds = (f"{number:+.{digits}f}" for number in numbers)
    return f"{value} ({low} to {high})", " ".join(seeds)
