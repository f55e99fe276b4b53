"""Accuracy."""

from collections.abc import Sequence

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.exact_match import exact_match


def accuracy(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Percentage of right answers. Where a task has choices, `predictions` are the likeliest ones, not written texts.

    See graftlm.evaluation.choices for how they are ranked.
    """
    return exact_match(predictions, references)
