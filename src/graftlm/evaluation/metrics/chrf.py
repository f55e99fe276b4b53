"""chrF."""

from collections.abc import Sequence

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.corpus import corpus_metric


def chrf(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Corpus chrF2 with sacrebleu's defaults (character 6-grams, no words, best reference), 0 to 100.

    Source: Popović 2015 (W15-3049).
    """
    from sacrebleu.metrics.chrf import CHRF

    return corpus_metric(CHRF(), predictions, references)
