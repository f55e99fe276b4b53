"""ROUGE-1 and ROUGE-2."""

import re
from collections import Counter
from collections.abc import Sequence

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.mean import mean_of_best
from graftlm.evaluation.metrics.overlap import bag_f1


def rouge1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Mean F1 of the words that a prediction and its best reference have in common, in percent; no stemming.

    Source: Lin 2004 (W04-1013), section 2; F1 and best reference as in Google's rouge-score
    (https://github.com/google-research/google-research/tree/master/rouge).
    """
    return mean_of_best(predictions, references, lambda text: ngrams(words(text), 1), bag_f1)


def rouge2(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """As `rouge1`, of pairs of neighbouring words."""
    return mean_of_best(predictions, references, lambda text: ngrams(words(text), 2), bag_f1)


def words(text: str) -> list[str]:
    """Lower-cased runs of a to z and 0 to 9; everything else parts them.

    Source: rouge-score's default tokenizer without stemming
    (https://github.com/google-research/google-research/blob/master/rouge/tokenize.py).

    >>> words("Don't panic: 42 CAFÉS!")
    ['don', 't', 'panic', '42', 'caf', 's']
    """
    return re.findall(r"[a-z0-9]+", text.lower())


def ngrams(tokens: Sequence[str], n: int) -> Counter[str]:
    """All runs of n tokens, with how often each occurs.

    >>> dict(ngrams(["a", "b", "a", "b"], 2))
    {'a b': 2, 'b a': 1}
    """
    return Counter(" ".join(tokens[start : start + n]) for start in range(len(tokens) - n + 1))
