"""BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.corpus import corpus_metric, corpus_score

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Corpus BLEU with sacrebleu's defaults (13a tokens, case kept, exponential smoothing), 0 to 100.

    Source: Papineni et al. 2002 (P02-1040); Post 2018 (arXiv 1804.08771).
    """
    return corpus_metric(_scorer(), predictions, references)


def bleu_score(sums: list[float]) -> float:
    """BLEU of summed statistics: lengths of predictions and references, right and all 1- to 4-grams."""
    return corpus_score(_cached_scorer(), sums)


def _scorer() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU()


_cached_scorer = cache(_scorer)
"""For scores alone; a scorer that reads texts remembers their number of references for its signature."""
