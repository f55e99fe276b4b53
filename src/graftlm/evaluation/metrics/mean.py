"""Metrics that are the mean of one score per example."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from graftlm.evaluation.metrics.bootstrap import Metric, measure

Prepared = TypeVar("Prepared")


def mean_of_best(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    prepare: Callable[[str], Prepared],
    score: Callable[[Prepared, Prepared], float],
) -> Metric:
    """Mean over predictions of the best `score` (0 to 1) with any of their references, in percent.

    `score` takes a prediction and a reference as `prepare` makes them of texts.
    """
    best = []
    for text, accepted in zip(predictions, references, strict=True):
        predicted = prepare(text)
        best.append([float(max(score(predicted, prepare(reference)) for reference in accepted)), 1.0])
    return measure(best, percent)


def percent(sums: list[float]) -> float:
    """The first sum in percent of the second.

    >>> percent([1.0, 4.0])
    25.0
    """
    return 100 * sums[0] / sums[1]
