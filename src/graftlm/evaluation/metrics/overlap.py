"""Overlap of two bags of tokens."""

from collections import Counter


def bag_f1(predicted: Counter[str], expected: Counter[str]) -> float:
    """F1 of the tokens that two bags have in common, each as often as in both; 0 where nothing is.

    >>> bag_f1(Counter("aab"), Counter("aacc"))
    0.5714285714285714
    """
    return f1((predicted & expected).total(), predicted.total(), expected.total())


def f1(common: int, predicted: int, expected: int) -> float:
    """Harmonic mean of precision (common / predicted) and recall (common / expected); 0 where nothing is common.

    >>> f1(2, 4, 2)
    0.6666666666666666
    """
    return 2 * common / (predicted + expected) if common else 0.0
