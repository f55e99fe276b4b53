"""The examples that an objective makes of documents, made when they are looked at."""

from __future__ import annotations

import copy
from functools import cached_property
from random import Random

from graftlm.data.collate import Example
from graftlm.data.deferred import Deferred, DeferredExamples
from graftlm.data.text_task import TextTask
from graftlm.data.texts import SHORTEST, Documents
from graftlm.data.tokenizers import Tokenizers
from graftlm.objectives.frame import Frame
from graftlm.objectives.objective import Objective, Split
from graftlm.objectives.registry import document_objective, make_example, prepare

PROBED = 64
"""Examples whose sides are measured, to tell how long those of a whole run are."""


class TextExamples(DeferredExamples):
    """Documents in pieces that an objective takes whole, one example a piece; anew each time they are gone through.

    Pieces are as long as the objective takes at most, the last of a document shorter; one of a single token is left
    out. Example i of round e is a function of documents, objective, frame, seed, i and e; `task` is their task's name.
    """

    def __init__(self, documents: Documents, objective: Objective, frame: Frame, seed: int, task: str = "") -> None:
        self.documents = documents
        self.task = task
        self._objective, self._frame, self._seed, self._round = objective, frame, seed, 0
        self._pieces = pieces(documents, self.length)

    @property
    def length(self) -> int:
        """Most tokens of a document that one example is made of."""
        return self._objective.length(self._frame)

    @property
    def start(self) -> tuple[int, ...]:
        """Ids that a language model reads before a document, such as BOS."""
        return self._frame.source_start

    def renewed(self, round: int) -> TextExamples:
        """The same pieces with other examples made of them, from round 0 on."""
        other = copy.copy(self)
        other._round = round
        return other

    def __len__(self) -> int:
        return len(self._pieces)

    def item(self, number: int) -> Deferred:
        """The example of a piece, not made yet."""
        _, start, stop = self._pieces[number]
        source, target = self._sides
        tokens = stop - start
        lengths = round(source * tokens), max(1, round(target * tokens))
        return Deferred(self.example, number, lengths, self.task)

    def example(self, number: int) -> Example:
        """The example of a piece."""
        return self.split(number).example

    def split(self, number: int) -> Split:
        """The example of a piece with the places of its target's tokens in it."""
        document, start, stop = self._pieces[number]
        # With one token more than it takes, an objective can tell a piece from the end of a document.
        ids = self.documents[document][start : stop + 1].tolist()
        return make_example(self._objective, ids, self._frame, self._seed, self._round * len(self) + number)

    def place(self, number: int) -> tuple[int, int]:
        """Number of the document that an example is made of, and where in it the positions of its split begin."""
        return self._pieces[number][:2]

    @cached_property
    def _sides(self) -> tuple[float, float]:
        """Tokens of source and target for each token of a piece, on average."""
        probed = Random(0).sample(range(len(self)), min(PROBED, len(self)))
        splits = [self.split(number) for number in probed]
        tokens = sum(stop - start for _, start, stop in (self._pieces[number] for number in probed))
        sources = sum(len(split.source) for split in splits)
        targets = sum(len(split.target) for split in splits)
        return sources / tokens, targets / tokens


def pieces(documents: Documents, length: int) -> list[tuple[int, int, int]]:
    """(document, start, stop) of pieces of `length` tokens, the last of each document shorter.

    >>> import numpy as np
    >>> pieces(Documents(np.arange(9), np.array([0, 6, 9])), 4)
    [(0, 0, 4), (0, 4, 6), (1, 0, 3)]
    """
    found = []
    for number in range(len(documents)):
        size = len(documents[number])
        found += [(number, i, min(i + length, size)) for i in range(0, size, length) if size - i >= SHORTEST]
    return found


def text_examples(
    task: TextTask, tokenizers: Tokenizers, split: str, seed: int, limit: int | None = None
) -> TextExamples:
    """Examples of a text task for a graft's tokenizers; `limit` is the first so many documents of the split.

    Raises: TaskError for data that cannot be used, ConfigError for an objective that cannot be.
    """
    objective = document_objective(task.objective)
    frame = prepare(objective, tokenizers, task.source_length, task.target_length)
    return TextExamples(task.documents(split, tokenizers, limit), objective, frame, seed, task.name)
