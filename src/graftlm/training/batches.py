"""The batches of a run, ready for the model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from graftlm.data.collate import IGNORED_LABEL, PackedCollator, Seq2SeqCollator
from graftlm.data.deferred import Item, made
from graftlm.training.lessons import LessonCollator


class Batches(Dataset[dict[str, Tensor]]):
    """Batches in order, each padded or packed, in `parts` that follow one another.

    Of several processes each takes one of them in turn, so that all work on the same batch. Parts are as many examples
    each, or one more or less.
    """

    def __init__(self, batches: Sequence[Sequence[Item]], packing: bool, parts: int) -> None:
        self._batches = batches
        self._parts = parts
        self._collate = LessonCollator(PackedCollator() if packing else Seq2SeqCollator())

    def __len__(self) -> int:
        return len(self._batches) * self._parts

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number, part = divmod(index, self._parts)
        batch = self._batches[number]
        begin, end = (len(batch) * at // self._parts for at in (part, part + 1))
        made_batch = self._collate([made(item) for item in batch[begin:end] or batch[:1]])
        if begin == end:
            # A process without an example of its own computes one along, since all of them must reduce gradients.
            made_batch["labels"].fill_(IGNORED_LABEL)
        return made_batch

    @staticmethod
    def collate(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The Trainer's batch of one, whatever its size, as it is."""
        [batch] = batches
        return batch
