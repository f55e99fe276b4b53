"""Corpus metrics of sacrebleu with intervals from its own per-sentence statistics."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from graftlm.evaluation.metrics.bootstrap import Metric, measure

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacreMetric


def corpus_metric(scorer: SacreMetric, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Score of `predictions` (n) against `references` (n rows, each with one or more texts), from 0 to 100.

    Texts are compared once; resamples only add up what sacrebleu counted.
    """
    statistics = scorer._extract_corpus_statistics(predictions, streams(references))
    return measure(statistics, lambda sums: corpus_score(scorer, sums), signature=str(scorer.get_signature()))


def corpus_score(scorer: SacreMetric, sums: list[float]) -> float:
    """Score of what sacrebleu counted, summed over sentences."""
    return float(scorer._compute_score_from_stats(sums).score)


def streams(references: Sequence[Sequence[str]]) -> list[tuple[Any, ...]]:
    """References by number instead of by row, as sacrebleu takes them; None where a row has fewer.

    >>> streams([["a", "b"], ["c"]])
    [('a', 'c'), ('b', None)]
    """
    return list(zip_longest(*references))
