"""Pairs of source and target as documents that a language model can read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graftlm.data.collate import Example
from graftlm.data.deferred import Deferred, DeferredExamples
from graftlm.objectives.frame import Frame
from graftlm.objectives.objective import NOWHERE, Split


class PairExamples(DeferredExamples):
    """Pairs; the document of each is its source followed by its target, without what the frame puts around them.

    >>> pairs = PairExamples([Example([1, 10, 11], [12, 13, 2])], Frame(source_start=(1,), target_end=(2,)), "toy")
    >>> pairs.documents[0].tolist(), pairs.split(0).positions
    ([10, 11, 12, 13], [2, 3, -1])
    """

    def __init__(self, examples: Sequence[Example], frame: Frame, task: str) -> None:
        """`task` is the name of their task."""
        self.task = task
        self.start = frame.source_start
        """Ids that a language model reads before a document, such as BOS."""
        self._pairs = examples
        self._before, self._after = len(frame.target_start), len(frame.target_end)
        sources = [pair.input_ids[len(self.start) : len(pair.input_ids) - len(frame.source_end)] for pair in examples]
        targets = [pair.labels[self._before : len(pair.labels) - self._after] for pair in examples]
        self.documents: list[npt.NDArray[np.int32]] = [
            np.array(source + target, dtype=np.int32) for source, target in zip(sources, targets, strict=True)
        ]
        self.length = max(map(len, self.documents))
        """Tokens of the longest document."""

    def renewed(self, round: int) -> PairExamples:
        """The same pairs in every round."""
        return self

    def __len__(self) -> int:
        return len(self._pairs)

    def item(self, number: int) -> Deferred:
        """A pair."""
        pair = self._pairs[number]
        return Deferred(self._pairs.__getitem__, number, (len(pair.input_ids), len(pair.labels)), self.task)

    def split(self, number: int) -> Split:
        """A pair with the places of its target's tokens in its document."""
        pair, stop = self._pairs[number], len(self.documents[number])
        first = stop - len(pair.labels) + self._before + self._after
        positions = [*[NOWHERE] * self._before, *range(first, stop), *[NOWHERE] * self._after]
        return Split(pair.input_ids, pair.labels, positions)

    def place(self, number: int) -> tuple[int, int]:
        """Number of a pair's document, and where in it the positions of its split begin."""
        return number, 0
