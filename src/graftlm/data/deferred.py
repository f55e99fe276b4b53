"""Examples that are made when they are needed, so that a long run does not hold them all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, overload

from graftlm.data.collate import Example


class Deferred(NamedTuple):
    """An example that `make(number)` gives, and about how many tokens source and target will have."""

    make: Callable[[int], Example]
    number: int
    lengths: tuple[int, int]
    task: str = ""
    """Name of the task that it is of, for messages."""

    def example(self) -> Example:
        """The example itself, the same at every call."""
        return self.make(self.number)


class DeferredExamples(Sequence[Deferred]):
    """Examples of which `item` gives one by its number, from 0 on."""

    @abstractmethod
    def item(self, number: int) -> Deferred:
        """One of them."""

    @overload
    def __getitem__(self, index: int) -> Deferred: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Deferred]: ...
    def __getitem__(self, index: int | slice) -> Deferred | Sequence[Deferred]:
        if isinstance(index, slice):
            return [self.item(number) for number in range(len(self))[index]]
        return self.item(range(len(self))[index])


Item = Example | Deferred


def made(item: Item) -> Example:
    """The example itself."""
    return item.example() if isinstance(item, Deferred) else item


def lengths(item: Item) -> tuple[int, int]:
    """Tokens of source and target; of an example that is not made yet, about so many."""
    return item.lengths if isinstance(item, Deferred) else (len(item.input_ids), len(item.labels))
