"""From records to token ids, and from token ids to batches, padded or packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from graftlm.data.records import Record
from graftlm.data.task import Task
from graftlm.data.tokenizers import Tokenizers

IGNORED_LABEL = -100
"""Label of padding, as PyTorch's cross-entropy expects it."""

Side = Literal["left", "right"]


class Example(NamedTuple):
    """Token ids of one record, as Tokenizers gives them."""

    input_ids: list[int]
    labels: list[int]
    taught: Any = None
    """What a teacher says of the labels, where there is one: training.lessons has it."""


def encode(record: Record, task: Task, tokenizers: Tokenizers, limit: int) -> Example:
    """Source and target of a record as token ids; `limit` bounds the source (see Task.source_limit).

    Raises: TaskError for a source over the limit (unless the task truncates) and for a tokenizer without EOS.

    With one id per letter, BOS 1 and EOS 2, source "ab" and target "c" become Example([1, 7, 8], [9, 2]).
    """
    name = f"The source of record {record.id}"
    source = tokenizers.encode_source(task.source(record), limit, truncate=task.truncate, name=name)
    return Example(source, tokenizers.encode_target(task.target(record)))


def pad(rows: Sequence[Sequence[int]], value: int, side: Side = "right") -> Tensor:
    """Rows of any lengths as one int64 tensor (B, longest).

    >>> pad([[5, 6], [7]], 0, "left").tolist()
    [[5, 6], [0, 7]]
    """
    longest = max(map(len, rows))
    filled = [[value] * (longest - len(row)) for row in rows]
    joined = [[*fill, *row] if side == "left" else [*row, *fill] for row, fill in zip(rows, filled, strict=True)]
    return torch.tensor(joined, dtype=torch.long)


@dataclass(frozen=True)
class Seq2SeqCollator:
    """Examples, or mappings with the same two fields, as one padded batch.

    Shapes: input_ids and attention_mask (B, S), labels (B, T), all int64.

    >>> batch = Seq2SeqCollator(pad_token_id=0)([Example([1, 7, 8], [9, 2]), Example([1, 7], [2])])
    >>> batch["input_ids"].tolist(), batch["attention_mask"].tolist(), batch["labels"].tolist()
    ([[1, 7, 8], [1, 7, 0]], [[1, 1, 1], [1, 1, 0]], [[9, 2], [2, -100]])
    """

    pad_token_id: int = 0
    """Fills sources up; which id of their vocabulary it is does not matter, since the mask leaves it out."""
    padding_side: Side = "right"
    """Side of the sources' padding; labels are padded on the right, where their position does not move."""

    def __call__(self, examples: Sequence[Example | Mapping[str, Any]]) -> dict[str, Tensor]:
        rows = _examples(examples)
        sources = [row.input_ids for row in rows]
        return {
            "input_ids": pad(sources, self.pad_token_id, self.padding_side),
            "attention_mask": pad([[1] * len(ids) for ids in sources], 0, self.padding_side),
            "labels": pad([row.labels for row in rows], IGNORED_LABEL),
        }


@dataclass(frozen=True)
class PackedCollator:
    """Examples, or mappings with the same two fields, as one packed batch, which has no padding.

    Shapes: input_ids (1, S) and labels (1, T) hold the sources and the targets one after the other, source_lengths and
    target_lengths (n,) the tokens of each; all int64.

    >>> batch = PackedCollator()([Example([1, 7, 8], [9, 2]), Example([1, 7], [2])])
    >>> batch["input_ids"].tolist(), batch["source_lengths"].tolist()
    ([[1, 7, 8, 1, 7]], [3, 2])
    >>> batch["labels"].tolist(), batch["target_lengths"].tolist()
    ([[9, 2, 2]], [2, 1])
    """

    def __call__(self, examples: Sequence[Example | Mapping[str, Any]]) -> dict[str, Tensor]:
        rows = _examples(examples)
        sources, targets = [row.input_ids for row in rows], [row.labels for row in rows]
        return {
            "input_ids": torch.tensor([[*chain(*sources)]]),
            "source_lengths": torch.tensor([len(ids) for ids in sources]),
            "labels": torch.tensor([[*chain(*targets)]]),
            "target_lengths": torch.tensor([len(ids) for ids in targets]),
        }


def _examples(given: Sequence[Example | Mapping[str, Any]]) -> list[Example]:
    return [Example(row["input_ids"], row["labels"]) if isinstance(row, Mapping) else row for row in given]
