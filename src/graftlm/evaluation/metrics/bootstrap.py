"""Bootstrap intervals of scores that are functions of summed per-example statistics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

RESAMPLES = 1000

Score = Callable[[list[float]], float]
"""A score as a function of summed statistics."""


@dataclass(frozen=True)
class Metric:
    """A value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float
    signature: str | None = None
    """Settings that the value depends on, in sacrebleu's notation."""
    statistics: Sequence[Sequence[float]] = field(default=(), repr=False, compare=False)
    """What the value was made of, one row per example."""

    def to_dict(self) -> dict[str, float]:
        """The three numbers, as run records hold them."""
        return {"value": self.value, "low": self.low, "high": self.high}


def measure(
    statistics: Sequence[Sequence[float]],
    score: Score,
    *,
    signature: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Metric:
    """Score of the summed statistics, with the 2.5 and 97.5 percentiles over resampled examples.

    `statistics` are n rows of k numbers, one row per example; `score` takes their k sums.
    Source: percentile bootstrap, Efron and Tibshirani 1993, chapter 13; for BLEU, Koehn 2004 (W04-3250).

    >>> measure([[1, 1], [1, 1]], lambda sums: sums[0] / sums[1])
    Metric(value=1.0, low=1.0, high=1.0, signature=None)
    """
    low, high = interval(resample(statistics, score, resamples=resamples, seed=seed))
    value = score(np.asarray(statistics, dtype=np.float64).sum(0).tolist())
    return Metric(value, low, high, signature, statistics)


def resample(
    statistics: Sequence[Sequence[float]], score: Score, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[float]:
    """Scores of resampled corpora: as many examples as there are, drawn with replacement.

    Statistics of one example stay together, so two systems' statistics side by side are resampled as pairs.
    """
    rows = np.asarray(statistics, dtype=np.float64)
    random = np.random.default_rng(seed)
    draws = (random.integers(len(rows), size=len(rows)) for _ in range(resamples))
    return [score(rows[draw].sum(0).tolist()) for draw in draws]


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles."""
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
