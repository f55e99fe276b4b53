"""Exact match."""

from collections.abc import Sequence

from graftlm.evaluation.metrics.bootstrap import Metric, measure


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Percentage of predictions that equal any of their references, white space aside."""
    pairs = zip(predictions, references, strict=True)
    hits = [[float(_plain(text) in map(_plain, accepted)), 1.0] for text, accepted in pairs]
    return measure(hits, lambda sums: 100 * sums[0] / sums[1])


def _plain(text: str) -> str:
    return " ".join(text.split())
