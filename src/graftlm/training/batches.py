"""The batches of a run, ready for the model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from graftlm.data.collate import PackedCollator, Seq2SeqCollator
from graftlm.data.deferred import Item, made
from graftlm.training.lessons import LessonCollator


class Batches(Dataset[dict[str, Tensor]]):
    """Batches in order, each padded or packed, in `parts` that follow one another.

    Of several processes each takes one of them in turn, so that all work on the same batch.
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
        size = len(batch) // self._parts
        return self._collate([made(item) for item in batch[part * size : (part + 1) * size]])

    @staticmethod
    def collate(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The Trainer's batch of one, whatever its size, as it is."""
        [batch] = batches
        return batch
