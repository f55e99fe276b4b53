"""Examples with what a teacher says of their targets, stored or still to be asked, as batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graftlm.data.collate import IGNORED_LABEL, Example, PackedCollator, Seq2SeqCollator, pad
from graftlm.objectives.distillation import Aligned, Reading
from graftlm.objectives.objective import NOWHERE

STORED = ("teacher_ids", "teacher_probabilities")
ASKED = ("teacher_input_ids", "teacher_attention_mask", "teacher_outputs")
"""Fields of a batch that hold the teacher's Targets, and those of what it is asked."""


class Asked(NamedTuple):
    """What a teacher is to read."""

    ids: Tensor
    """(P, L); a piece of a document in each row."""
    mask: Tensor
    """(P, L)."""
    outputs: Tensor
    """For each target token the place in the flattened rows whose output is about it; NOWHERE for none."""


def asked(readings: Sequence[Reading]) -> Asked:
    """The readings of several examples, padded on the right; the outputs of all their targets in one row, (T).

    >>> toy = asked([Reading([[1, 10, 11]], [(0, 1), (0, 2)]), Reading([[1, 12]], [(0, 1), (-1, -1)])])
    >>> toy.ids.tolist(), toy.mask.tolist(), toy.outputs.tolist()
    ([[1, 10, 11], [1, 12, 0]], [[1, 1, 1], [1, 1, 0]], [1, 2, 4, -1])
    """
    pieces = [piece for one in readings for piece in one.pieces] or [[0]]
    width, first, outputs = max(map(len, pieces)), 0, []
    for one in readings:
        outputs += [NOWHERE if piece == NOWHERE else (first + piece) * width + at for piece, at in one.outputs]
        first += len(one.pieces)
    return Asked(pad(pieces, 0), pad([[1] * len(piece) for piece in pieces], 0), torch.tensor(outputs))


@dataclass(frozen=True)
class LessonCollator:
    """Examples as a padded or packed batch, with further fields for lessons, which are those that are `taught`.

    A lesson holds either Aligned, what the teacher said of its labels, or a Reading, what it is to be asked; the
    examples of a batch are all of one kind.
    Shapes: labels (B, T); the fields STORED (B, T, K), 0 where there are fewer; ASKED as in Asked, outputs (B, T).
    """

    collate: Seq2SeqCollator | PackedCollator = field(default_factory=Seq2SeqCollator)

    def __call__(self, lessons: Sequence[Example]) -> dict[str, Tensor]:
        batch = self.collate(lessons)
        # In the order of the lessons' own labels, one lesson after the other, padded or not.
        real = batch["labels"] != IGNORED_LABEL
        stored = [lesson.taught for lesson in lessons if isinstance(lesson.taught, Aligned)]
        to_ask = [lesson.taught for lesson in lessons if isinstance(lesson.taught, Reading)]
        assert len(lessons) in (len(stored), len(to_ask)) or not (stored or to_ask), "examples of several kinds"
        if to_ask:
            ids, mask, outputs = asked(to_ask)
            placed = torch.full_like(batch["labels"], NOWHERE).masked_scatter_(real, outputs)
            return batch | dict(zip(ASKED, (ids, mask, placed), strict=True))
        if stored:
            return batch | {name: _placed(rows, real) for name, *rows in zip(STORED, *stored, strict=True)}
        return batch


def _placed(rows: Sequence[np.ndarray], real: Tensor) -> Tensor:
    """Arrays (T, K) of any sizes, one after the other where `real` (B, T) is true; (B, T, K)."""
    width = max(row.shape[1] for row in rows)
    flat = torch.cat([F.pad(torch.from_numpy(row), (0, width - row.shape[1])) for row in rows])
    placed = flat.new_zeros(*real.shape, width)
    placed[real] = flat
    return placed
