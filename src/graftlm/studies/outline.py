"""A study on paper: a row for each arm, its settings checked before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graftlm.training.settings import TuneSettings


class Outline(NamedTuple):
    """A table of the arms, and a sentence on all of them."""

    columns: list[str]
    rows: list[list[str]]
    total: str


class ArmOutline(NamedTuple):
    """What one arm comes to."""

    size: str
    """Of its batches and how many there are."""
    rates: str
    runs: int
    updates: int


def arm_outline(settings: Mapping[str, Any], rates: Sequence[float], seeds: int, rate_of: str | None) -> ArmOutline:
    """An arm of these settings that searches `rates` on the first of its seeds, or takes the rate of another arm.

    Raises: ConfigError for an arm that could not be trained.
    """
    checked, *_ = (TuneSettings(**{**settings, "learning_rate": rate}) for rate in rates)
    runs = seeds + (0 if rate_of else len(rates) - 1)
    searched = f"of {rate_of}" if rate_of else " ".join(map(short, rates))
    return ArmOutline(f"{checked.batch_size} × {checked.steps:,}", searched, runs, runs * checked.steps)


def short(rate: float) -> str:
    """A learning rate in few letters.

    >>> short(0.0006), short(2e-05), short(0.0025)
    ('6e-4', '2e-5', '2.5e-3')
    """
    number, exponent = f"{rate:e}".split("e")
    return f"{float(number):g}e{int(exponent)}"
