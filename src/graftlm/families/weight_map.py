"""Weight maps: one table per family between its tensors and ours; both directions, with the layer as a named hole."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

BASE = "{base}"
HOLES = ("{layer}", "{expert}")
REST = "{rest}"
"""Stands for any end of a name, in patterns of tensors that are dropped."""

Shapes = Sequence[tuple[int, ...]]
Split = Callable[[Tensor, Shapes, Any], Sequence[Tensor]]
"""Source tensor, shapes of our tensors, our config -> our tensors; views where possible."""
Join = Callable[[Sequence[Tensor], Any], Tensor]
"""Our tensors, our config -> source tensor. It also works on meta tensors, and so tells the shape."""
Condition = Callable[[Any], bool]
"""A question to our config."""


@dataclass(frozen=True)
class TensorRule:
    """One tensor of the source, and those of ours that it holds; one of each per layer where the names have holes."""

    source: str
    ours: tuple[str, ...]
    split: Split
    join: Join
    default: float | None = None
    """Value that all of it has where a release leaves it out; None where it must be there."""
    when: Condition | None = None
    """Configs that have the tensor under this name; None for all."""

    def __post_init__(self) -> None:
        assert all(holes(name) == holes(self.source) for name in self.ours)


def rename(source: str, ours: str, default: float | None = None, when: Condition | None = None) -> TensorRule:
    """The same tensor under two names."""
    return TensorRule(source, (ours,), lambda t, shapes, c: (t,), lambda parts, c: parts[0], default, when)


def fused(source: str, *ours: str) -> TensorRule:
    """Several of our tensors, one after the other along the first dimension of one of the source.

    With shapes (2, 3) and (1, 3) of ours the source is (3, 3): two rows of the first, then one of the second.
    """
    return TensorRule(source, ours, _rows, lambda parts, c: torch.cat(list(parts)))


def transposed(source: str, *ours: str) -> TensorRule:
    """As `fused`, of a matrix that the source stores as (inputs, outputs)."""
    return TensorRule(
        source, ours, lambda t, shapes, c: _rows(t.T, shapes, c), lambda parts, c: torch.cat(list(parts)).T
    )


def _rows(tensor: Tensor, shapes: Shapes, config: Any) -> Sequence[Tensor]:
    return tensor.split([shape[0] for shape in shapes])


@dataclass(frozen=True)
class Place:
    """Where one of our tensors stands in a source: the part `ours.index(name)` of the tensor `source`."""

    source: str
    ours: tuple[str, ...]
    rule: TensorRule


@dataclass(frozen=True)
class WeightMap:
    """The table of one family; ours are the names of its model class.

    Several rules for one of our tensors are names that different releases use; the first is written. `bases` are what
    `{base}` may stand for, the first again being written. `dropped` are tensors that carry no weights that we use.
    """

    rules: tuple[TensorRule, ...]
    dropped: tuple[str, ...] = ()
    bases: tuple[str, ...] = ("",)

    def of(self, config: Any) -> WeightMap:
        """The part of the table that holds for one of our configs."""
        return replace(self, rules=tuple(rule for rule in self.rules if rule.when is None or rule.when(config)))

    def base_of(self, names: Collection[str]) -> str:
        """The base that most of a checkpoint's tensors agree with."""
        return max(self.bases, key=lambda base: sum(self.to_ours(name, base) is not None for name in names))

    def to_ours(self, name: str, base: str | None = None) -> Place | None:
        """Which of our tensors a source tensor holds; None where no rule speaks of it.

        >>> m = WeightMap((rename("model.layers.{layer}.mlp.up.weight", "decoder.layers.{layer}.up.weight"),))
        >>> m.to_ours("model.layers.3.mlp.up.weight").ours
        ('decoder.layers.3.up.weight',)
        """
        for rule in self.rules:
            found = match(self._based(rule.source, base), name)
            if found is not None:
                return Place(name, tuple(fill(ours, found) for ours in rule.ours), rule)
        return None

    def to_source(self, name: str, base: str | None = None, present: Collection[str] = ()) -> Place | None:
        """Where one of our tensors stands in the source; of several names, one that is present goes first."""
        first = None
        for rule in self.rules:
            for ours in rule.ours:
                found = match(ours, name)
                if found is None:
                    continue
                source = fill(self._based(rule.source, base), found)
                place = Place(source, tuple(fill(part, found) for part in rule.ours), rule)
                if source in present:
                    return place
                first = first or place
        return first

    def is_dropped(self, name: str, base: str | None = None) -> bool:
        """The source tensor is one of those left behind on purpose."""
        return any(match(self._based(pattern, base), name) is not None for pattern in self.dropped)

    def _based(self, pattern: str, base: str | None) -> str:
        return pattern.replace(BASE, self.bases[0] if base is None else base)


def holes(pattern: str) -> tuple[str, ...]:
    """The holes of a pattern, in the order of HOLES."""
    return tuple(hole for hole in HOLES if hole in pattern)


def fill(pattern: str, values: dict[str, str]) -> str:
    """The pattern with its holes filled."""
    for hole, value in values.items():
        pattern = pattern.replace("{" + hole + "}", value)
    return pattern


def match(pattern: str, name: str) -> dict[str, str] | None:
    """What each hole holds, None for a name that the pattern does not fit.

    >>> match("layers.{layer}.up", "layers.12.up")
    {'layer': '12'}
    """
    found = _compiled(pattern).fullmatch(name)
    return None if found is None else found.groupdict()


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern)
    for hole in HOLES:
        text = text.replace(re.escape(hole), rf"(?P<{hole[1:-1]}>\d+)")
    return re.compile(text.replace(re.escape(REST), ".+"))
