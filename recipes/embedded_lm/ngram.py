"""Interpolated modified Kneser-Ney n-gram model over token ids, in vectorised numpy.

The estimates follow Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (1999),
https://doi.org/10.1006/csla.1999.0128: three discounts an order, and counts of distinct preceding tokens below the
highest order. An n-gram that starts with BOS keeps its plain count at every order, as nothing precedes it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Order:
    """The n-grams of one length: sorted keys, what each n-gram keeps, and what each of its contexts passes down.

    A key is `index of the context among the (n-1)-grams * vocabulary + last token`.
    """

    keys: Ints
    share: Floats
    backoff: Floats


def positions(tokens: Ints, bos: int) -> Ints:
    """Distance of each token from the BOS that starts its document."""
    indices = np.arange(len(tokens))
    starts: Ints = np.maximum.accumulate(np.where(tokens == bos, indices, 0))
    return indices - starts


def discounts(counts: Ints) -> Floats:
    """What is taken off a count of 0, 1, 2, and 3 or more; small samples are kept within 0.1 and the count."""
    n1, n2, n3, n4 = (max(1.0, float((counts == c).sum())) for c in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    taken = np.clip([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3], 0.1, [1, 2, 3])
    return np.concatenate(([0.0], taken))


def _order(keys: Ints, counts: Ints, contexts: int, vocabulary: int) -> Order:
    context = keys // vocabulary
    discount = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(context, counts, contexts)
    left = np.bincount(context, discount, contexts)
    backoff = np.divide(left, total, out=np.ones(contexts), where=total > 0)
    return Order(keys, (counts - discount) / total[context], backoff)


@dataclass(frozen=True)
class KneserNey:
    """A fitted model; `orders[0]` holds the unigrams."""

    orders: list[Order]
    vocabulary: int
    bos: int

    @classmethod
    def fit(cls, tokens: Ints, vocabulary: int, bos: int, order: int = 5) -> "KneserNey":
        """Estimate from one row of ids in which BOS starts each document; no n-gram crosses a document's start."""
        place = positions(tokens, bos)
        ids = np.zeros(len(tokens), np.int64)
        keys: list[Ints] = []
        counts: list[Ints] = []
        for n in range(1, order + 1):
            ends = np.flatnonzero(place >= n - 1)
            context = ids[ends - 1] if n > 1 else 0
            distinct, first, index = np.unique(
                context * vocabulary + tokens[ends], return_index=True, return_inverse=True
            )
            if n > 1:
                # Each distinct n-gram is one preceding token of the (n-1)-gram it ends with.
                counts[-1] += np.bincount(ids[ends[first]], minlength=len(keys[-1]))
            # BOS itself is never predicted, so it has no count as a unigram.
            plain = index if n == order else index[(place[ends] == n - 1) & (n > 1)]
            keys.append(distinct)
            counts.append(np.bincount(plain, minlength=len(distinct)))
            ids = np.full(len(tokens), -1, np.int64)
            ids[ends] = index
        sizes = [1, *map(len, keys[:-1])]
        orders = [_order(k, c, size, vocabulary) for k, c, size in zip(keys, counts, sizes, strict=True)]
        return cls(orders, vocabulary, bos)

    def log2(self, tokens: Ints) -> Floats:
        """Base-2 log probability of each token given the tokens before it in its document."""
        place = positions(tokens, self.bos)
        probability = np.full(len(tokens), 1 / self.vocabulary)
        context = np.zeros(len(tokens), np.int64)
        for n, order in enumerate(self.orders, 1):
            seen = np.flatnonzero((place >= n - 1) & (context >= 0))
            key = context[seen] * self.vocabulary + tokens[seen]
            index = np.minimum(np.searchsorted(order.keys, key), len(order.keys) - 1)
            found = order.keys[index] == key
            passed_down = order.backoff[context[seen]] * probability[seen]
            probability[seen] = np.where(found, order.share[index], 0) + passed_down
            ids = np.full(len(tokens), -1, np.int64)
            ids[seen] = np.where(found, index, -1)
            context = np.concatenate(([-1], ids[:-1]))
        bits: Floats = np.log2(probability)
        return bits
