"""Documents: plain texts to learn a language from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from graftlm.data.records import check_text
from graftlm.data.rows import DatasetSource, rows_of
from graftlm.errors import TaskError

BATCH = 256
"""Documents that are tokenised at a time."""
SLICE = 1_000_000
"""Characters of a document that are tokenised at a time; a longer one is cut where a line or a word ends."""
SHORTEST = 2
"""Tokens of the shortest document that can be learned from: one to be given and one to be predicted."""


@dataclass
class Skipped:
    """Documents that were left out, by reason."""

    empty: int = 0
    binary: int = 0
    short: int = 0

    def __str__(self) -> str:
        reasons = {"empty": self.empty, "with NUL characters": self.binary, "of a single token": self.short}
        return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)


@dataclass(frozen=True)
class Documents:
    """Token ids of documents, one after the other; document i is ids[starts[i]:starts[i + 1]]."""

    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    skipped: Skipped = field(default_factory=Skipped, compare=False)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> npt.NDArray[np.int32]:
        return self.ids[self.starts[number] : self.starts[number + 1]]


def read_documents(
    source: str | Path | DatasetSource, tokenizer: PreTrainedTokenizerBase, limit: int | None = None
) -> Documents:
    """Documents of the field `text`, tokenised without special tokens; `limit` is the first so many rows.

    Empty texts, those with NUL characters, which are no texts, and those of a single token are left out and counted.
    Raises: TaskError naming file and line for a row without a text, and when nothing is left.

    {"text": "ab"} and {"text": " "}, with one id per letter, become ids [7, 8] and starts [0, 2].
    """
    skipped = Skipped()
    parts: list[npt.NDArray[np.int32]] = []
    for texts in _batches(_texts(source, skipped, limit)):
        for ids in _tokenised(texts, tokenizer):
            if len(ids) < SHORTEST:
                skipped.short += 1
            else:
                parts.append(ids)
    if not parts:
        raise TaskError(f"{source} holds no text to learn from ({skipped or 'no rows'}); give documents.")
    starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return Documents(np.concatenate(parts), starts, skipped)


def _texts(source: str | Path | DatasetSource, skipped: Skipped, limit: int | None) -> Iterator[str]:
    for place, row in rows_of(source):
        if limit is not None and place.number > limit:
            return
        if "text" not in row:
            raise TaskError(f"{place}: no 'text'; add it, or leave out `objective` for pairs of source and target.")
        check_text("text", row["text"], place)
        text: str = row["text"]
        if not text.strip():
            skipped.empty += 1
        elif "\0" in text:
            skipped.binary += 1
        else:
            yield text


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    """Lists of at most BATCH texts and hardly more than SLICE characters."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH or sum(map(len, batch)) >= SLICE:
            yield batch
            batch = []
    if batch:
        yield batch


def _tokenised(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[npt.NDArray[np.int32]]:
    pieces = [sliced(text) for text in texts]
    # A tokenizer warns of texts over the length that its model was trained for; these are cut later.
    flat = tokenizer([piece for document in pieces for piece in document], add_special_tokens=False, verbose=False)
    ids = iter(flat["input_ids"])
    for document in pieces:
        yield np.concatenate([np.asarray(next(ids), dtype=np.int32) for _ in document])


def sliced(text: str, size: int = SLICE) -> list[str]:
    """A text in pieces of at most `size` characters, each but the last ending before a space or line, if it can.

    >>> sliced("one two three", 8)
    ['one two', ' three']
    """
    pieces, start = [], 0
    while len(text) - start > size:
        cut = max(text.rfind(" ", start + 1, start + size), text.rfind("\n", start + 1, start + size))
        cut = cut if cut > start else start + size
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]
