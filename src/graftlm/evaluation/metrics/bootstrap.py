"""Bootstrap intervals of scores that are functions of summed per-example statistics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True)
class Metric:
    """A value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float
    signature: str | None = None
    """Settings that the value depends on, in sacrebleu's notation."""

    def to_dict(self) -> dict[str, float]:
        """The three numbers, as run records hold them."""
        return {"value": self.value, "low": self.low, "high": self.high}


def measure(
    statistics: Sequence[Sequence[float]],
    score: Callable[[list[float]], float],
    *,
    signature: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Metric:
    """Score of the summed statistics, with the 2.5 and 97.5 percentiles over resampled examples.

    `statistics` are n rows of k numbers, one row per example; `score` takes their k sums. Statistics of one example
    stay together, so a difference of two systems in one column gives a paired interval.
    Source: percentile bootstrap, Efron and Tibshirani 1993, chapter 13; for BLEU, Koehn 2004 (W04-3250).

    >>> measure([[1, 1], [1, 1]], lambda sums: sums[0] / sums[1])
    Metric(value=1.0, low=1.0, high=1.0, signature=None)
    """
    rows = np.asarray(statistics, dtype=np.float64)
    random = np.random.default_rng(seed)
    draws = (random.integers(len(rows), size=len(rows)) for _ in range(resamples))
    low, high = np.percentile([score(rows[draw].sum(0).tolist()) for draw in draws], [2.5, 97.5])
    return Metric(score(rows.sum(0).tolist()), float(low), float(high), signature)
