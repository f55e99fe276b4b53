"""Exact match."""

from collections.abc import Sequence
from operator import eq

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.mean import mean_of_best


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Percentage of predictions that equal any of their references, white space aside."""
    return mean_of_best(predictions, references, _plain, eq)


def _plain(text: str) -> str:
    return " ".join(text.split())
