"""BLEU."""

from collections.abc import Sequence

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.corpus import corpus_metric


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Corpus BLEU with sacrebleu's defaults (13a tokens, case kept, exponential smoothing), 0 to 100.

    Source: Papineni et al. 2002 (P02-1040); Post 2018 (arXiv 1804.08771).
    """
    from sacrebleu.metrics.bleu import BLEU

    return corpus_metric(BLEU(), predictions, references)
