"""Differences between two arms, by test examples and by seeds, and what was too small to see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from statistics import mean, variance
from typing import Any

from graftlm.evaluation.metrics.bootstrap import Score, interval, resample

POWER = 1.96 + 0.84
"""Standard errors of a difference that is found four times out of five, at the 5 % level."""

Rows = Sequence[Sequence[float]]
"""Statistics of each test example, whose sums make a metric."""


def difference(reference: Sequence[Rows], others: Sequence[Rows], score: Score) -> dict[str, Any]:
    """Mean over seeds of an arm's metric less that of its reference, which had the same data in the same order.

    `reference` and `others` hold the statistics of each seed. `low` and `high` bound the difference over test examples,
    resampled as pairs with all seeds together; `seeds` are the single differences, whose spread says what training by
    chance does.
    Source: paired bootstrap resampling, Koehn 2004 (W04-3250), section 4.
    """
    width = len(reference[0][0])
    columns = [*reference, *others]
    joined = [[number for rows in columns for number in rows[i]] for i in range(len(columns[0]))]

    def mean_difference(sums: list[float]) -> float:
        scores = [score(sums[start : start + width]) for start in range(0, len(sums), width)]
        half = len(scores) // 2
        return mean(scores[half:]) - mean(scores[:half])

    low, high = interval(resample(joined, mean_difference))
    by_seed = [
        score([sum(column) for column in zip(*b, strict=True)])
        - score([sum(column) for column in zip(*a, strict=True)])
        for a, b in zip(reference, others, strict=True)
    ]
    return {"value": mean(by_seed), "low": low, "high": high, "seeds": by_seed}


def smallest_difference(found: Iterable[Mapping[str, Any]]) -> float | None:
    """The smallest true difference between two arms that a study with these differences would find 4 times out of 5.

    POWER standard errors; their square is that of examples plus that of seeds, each averaged over all differences of
    several seeds; None where there are none.
    Source: normal approximation, Cohen 1988, section 2.2.
    """
    several = [one for one in found if len(one["seeds"]) > 1]
    if not several:
        return None
    seeds = mean(variance(one["seeds"]) / len(one["seeds"]) for one in several)
    examples = mean(((one["high"] - one["low"]) / (2 * 1.96)) ** 2 for one in several)
    return POWER * sqrt(seeds + examples)
