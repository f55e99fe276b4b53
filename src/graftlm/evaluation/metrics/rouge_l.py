"""ROUGE-L."""

from collections import defaultdict
from collections.abc import Sequence

from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.evaluation.metrics.mean import mean_of_best
from graftlm.evaluation.metrics.overlap import f1
from graftlm.evaluation.metrics.rouge_n import words


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """Mean F1 of the longest common subsequence of words, over all of a text, with the best reference, in percent.

    Source: Lin 2004 (W04-1013), section 3.1, with beta = 1 as in Google's rouge-score
    (https://github.com/google-research/google-research/tree/master/rouge); words as for `rouge1`.
    """
    return mean_of_best(predictions, references, words, lambda a, b: f1(common_subsequence(a, b), len(a), len(b)))


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    One row of the usual table is one integer, bit i being 0 where the row grows at token i of `a`.
    Source: Hyyrö 2004, Bit-Parallel LCS-length Computation Revisited.

    >>> common_subsequence("abcbdab", "bdcaba")
    4
    """
    places: defaultdict[str, int] = defaultdict(int)
    for i, token in enumerate(a):
        places[token] |= 1 << i
    everywhere = (1 << len(a)) - 1
    row = everywhere
    for token in b:
        matches = row & places[token]
        row = ((row + matches) | (row - matches)) & everywhere
    return len(a) - row.bit_count()
