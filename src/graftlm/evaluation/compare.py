"""Two evaluations of the same examples: is the difference more than chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftlm.errors import RecordError
from graftlm.evaluation.loss import per_token
from graftlm.evaluation.metrics import SCORES
from graftlm.evaluation.metrics.bootstrap import RESAMPLES, Score, interval, resample
from graftlm.evaluation.record import EvaluationRecord
from graftlm.versions import versions

ALL_SCORES: Mapping[str, Score] = {"loss": per_token, "source_gain": per_token, **SCORES}
"""Every metric of a record as a function of its summed statistics."""


def compare(a: EvaluationRecord, b: EvaluationRecord) -> dict[str, Any]:
    """Both values of every metric that two records share, with B - A, its 95 % interval and its p-value, as JSON.

    The records must be of the same examples. Loss and source gain are per token: they compare models that share a
    tokenizer.
    Raises: RecordError for records of other examples, and for statistics that do not give a record's own values.
    """
    for field in ("task", "split", "n", "data_sha256"):
        if getattr(a, field) != getattr(b, field):
            raise RecordError(
                f"Records can be compared only on the same examples, but their {field} differs: "
                f"{getattr(a, field)} and {getattr(b, field)}; evaluate both on the same."
            )
    if [row.choice is None for row in a.rows] != [row.choice is None for row in b.rows]:
        raise RecordError(
            "One record chose by likelihood and the other one wrote its answers, which are different metrics; "
            "evaluate both with the same task file."
        )
    shared = [name for name in a.metrics if name in b.metrics and name in ALL_SCORES]
    return {
        "task": a.task,
        "split": a.split,
        "n": a.n,
        "data_sha256": a.data_sha256,
        "a": {"model": a.model, "encoder": a.encoder},
        "b": {"model": b.model, "encoder": b.encoder},
        "metrics": {name: paired(_statistics(a, name), _statistics(b, name), ALL_SCORES[name]) for name in shared},
        "resamples": RESAMPLES,
        "versions": versions("sacrebleu"),
    }


def paired(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], score: Score, *, resamples: int = RESAMPLES
) -> dict[str, float]:
    """Scores of two systems from n rows of statistics each, and their difference over examples resampled as pairs.

    Source: paired bootstrap resampling, Koehn 2004 (W04-3250), section 4.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    width = first.shape[1]
    both = np.hstack((first, second)).tolist()
    differences = resample(both, lambda sums: score(sums[width:]) - score(sums[:width]), resamples=resamples)
    low, high = interval(differences)
    values = score(first.sum(0).tolist()), score(second.sum(0).tolist())
    return {
        "a": values[0],
        "b": values[1],
        "difference": values[1] - values[0],
        "low": low,
        "high": high,
        "p": two_sided_p(differences),
    }


def two_sided_p(differences: Sequence[float]) -> float:
    """Twice the share of resampled differences on the rarer side of 0, which itself lies on both; at most 1.

    The observed sample counts as one of the resamples, so that no finite number of them gives a p-value of 0.
    Source: Efron and Tibshirani 1993, section 15.4; Davison and Hinkley 1997, section 4.2.

    >>> two_sided_p([1.0] * 18 + [-1.0])
    0.2
    """
    values = np.asarray(differences)
    rarer = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(values) + 1))


def _statistics(record: EvaluationRecord, name: str) -> list[list[float]]:
    """A metric's rows. Raises: RecordError where they do not give the record's own value."""
    rows = [row.statistics.get(name, []) for row in record.rows]
    if len({len(row) for row in rows}) == 1:
        try:
            value = ALL_SCORES[name](np.sum(rows, axis=0).tolist())
        except (ArithmeticError, IndexError, ValueError):
            value = np.nan
        if np.isclose(value, record.metrics[name].value):
            return rows
    raise RecordError(
        f"The rows of {record.model} do not add up to its {name}; the record is damaged or of another version, "
        "so run graftlm eval again."
    )
