"""Token F1 of short answers."""

import re
import string
from collections import Counter
from collections.abc import Sequence

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.mean import mean_of_best
from graftlm.evaluation.metrics.overlap import bag_f1

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def token_f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Mean F1 of the words that a prediction and its best reference have in common, in percent.

    Two texts without words are equal, as in SQuAD 2.
    Source: Rajpurkar et al. 2016 (arXiv 1606.05250), section 6.1; the official evaluate-v2.0.py
    (https://rajpurkar.github.io/SQuAD-explorer/).
    """
    return mean_of_best(predictions, references, lambda text: Counter(answer_words(text)), _f1)


def answer_words(text: str) -> list[str]:
    """Lower-cased words without ASCII punctuation and without a, an and the.

    >>> answer_words("The U.S., an 'old-world' idea")
    ['us', 'oldworld', 'idea']
    """
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _f1(predicted: Counter[str], expected: Counter[str]) -> float:
    return bag_f1(predicted, expected) if predicted or expected else 1.0
