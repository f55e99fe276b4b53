"""Task metrics by name: pure functions of predictions and references."""

from collections.abc import Callable, Mapping, Sequence

from graftlm.evaluation.metrics.accuracy import accuracy
from graftlm.evaluation.metrics.bleu import bleu, bleu_score
from graftlm.evaluation.metrics.bootstrap import Metric, Score
from graftlm.evaluation.metrics.chrf import chrf, chrf_score
from graftlm.evaluation.metrics.exact_match import exact_match
from graftlm.evaluation.metrics.mean import percent
from graftlm.evaluation.metrics.rouge_l import rouge_l
from graftlm.evaluation.metrics.rouge_n import rouge1, rouge2
from graftlm.evaluation.metrics.token_f1 import token_f1

REGISTRY: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], Metric]] = {
    "bleu": bleu,
    "chrf": chrf,
    "rouge1": rouge1,
    "rouge2": rouge2,
    "rougeL": rouge_l,
    "exact_match": exact_match,
    "token_f1": token_f1,
    "accuracy": accuracy,
}
"""One function for each name in graftlm.data.task.METRICS."""

SCORES: Mapping[str, Score] = {**dict.fromkeys(REGISTRY, percent), "bleu": bleu_score, "chrf": chrf_score}
"""The same metrics as functions of their summed statistics."""
