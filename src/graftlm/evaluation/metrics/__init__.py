"""Task metrics by name: pure functions of predictions and references."""

from collections.abc import Callable, Sequence

from graftlm.evaluation.metrics.bleu import bleu
from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.chrf import chrf
from graftlm.evaluation.metrics.exact_match import exact_match

REGISTRY: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], Metric]] = {
    "bleu": bleu,
    "chrf": chrf,
    "exact_match": exact_match,
}
"""One function for each name in graftlm.data.task.METRICS."""
