"""chrF."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.corpus import corpus_metric, corpus_score

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF


def chrf(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Corpus chrF2 with sacrebleu's defaults (character 6-grams, no words, best reference), 0 to 100.

    Source: Popović 2015 (W15-3049).
    """
    return corpus_metric(_scorer(), predictions, references)


def chrf_score(sums: list[float]) -> float:
    """chrF of summed statistics: for each order the n-grams of the predictions, of the references, and in both."""
    return corpus_score(_cached_scorer(), sums)


def _scorer() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


_cached_scorer = cache(_scorer)
"""For scores alone; a scorer that reads texts remembers their number of references for its signature."""
