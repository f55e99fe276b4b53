"""Examples that stand one after the other in a row, side by side for attention: those of like lengths together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SPARE = {"cpu": 2**12, "cuda": 2**20}
"""Pairs of queries and keys that may be computed for nothing, rather than start another group."""


class Group(NamedTuple):
    """Where the tokens of n examples stand in the row; examples are padded to the longest of them."""

    tokens: Tensor
    """(n, L); padding repeats the last token of its example."""
    valid: Tensor
    """(n, L), False for padding."""
    into: Tensor
    """(n · L,), as `tokens`, but padding goes behind the end of the row."""
    padding: Tensor
    """(P,), the slots of n · L that are padding."""


def alike(lengths: Sequence[tuple[int, ...]], spare: int) -> list[list[int]]:
    """Numbers of the examples of each group, by (own, and perhaps memory) tokens of each example.

    >>> alike([(9,), (2,), (8,), (3,)], spare=20)
    [[0, 2], [3, 1]]
    """
    groups: list[list[int]] = []
    largest, real = (0,), 0
    for number in sorted(range(len(lengths)), key=lambda i: _pairs(lengths[i]), reverse=True):
        grown = tuple(map(max, zip(largest, lengths[number], strict=True))) if groups else lengths[number]
        real += _pairs(lengths[number])
        if not groups or (len(groups[-1]) + 1) * _pairs(grown) - real > spare:
            groups.append([])
            grown, real = lengths[number], _pairs(lengths[number])
        largest = grown
        groups[-1].append(number)
    return groups


def _pairs(lengths: tuple[int, ...]) -> int:
    """Of queries and keys: own tokens read own tokens and the memory."""
    return lengths[0] * sum(lengths)


def in_groups(lengths: Tensor, members: Sequence[Sequence[int]]) -> tuple[Group, ...]:
    """The groups of these examples in a row of examples of so many tokens (n,)."""
    starts, end = lengths.cumsum(0) - lengths, lengths.sum()
    groups = []
    for numbers in members:
        chosen = torch.tensor(numbers, device=lengths.device)
        length, start = lengths[chosen, None], starts[chosen, None]
        slots = torch.arange(max(lengths[chosen].tolist()), device=lengths.device)
        valid = slots < length
        tokens = start + slots.minimum(length - 1)
        into = tokens.where(valid, end).flatten()
        groups.append(Group(tokens, valid, into, (~valid).flatten().nonzero().flatten()))
    return tuple(groups)


def spread(row: Tensor, groups: tuple[Group, ...]) -> tuple[Tensor, ...]:
    """The heads of a row, (1, H, T, E), in groups: each (n, H, L, E). What comes back for padding must be zero."""
    parts = _Spread.apply(row.transpose(1, 2)[0].flatten(1), groups)
    shape = (row.shape[1], row.shape[3])
    return tuple(
        part.view(*group.tokens.shape, *shape).transpose(1, 2) for part, group in zip(parts, groups, strict=True)
    )


def joined(parts: Sequence[Tensor], groups: tuple[Group, ...]) -> Tensor:
    """The inverse of `spread`, with tokens before heads: each (n, H, L, E) -> (1, T, H, E)."""
    heads, width = parts[0].shape[1], parts[0].shape[3]
    row: Tensor = _Join.apply(groups, *(part.transpose(1, 2).reshape(-1, heads * width) for part in parts))
    return row.view(1, -1, heads, width)


class _Spread(torch.autograd.Function):
    """(T, F) -> (n · L, F) for each group. Every real token is in one place, so that backward only puts it back."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, groups: tuple[Group, ...]) -> tuple[Tensor, ...]:
        ctx.groups = groups
        return tuple(row.index_select(0, group.tokens.flatten()) for group in groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _put(grads, ctx.groups), None


class _Join(torch.autograd.Function):
    """The inverse."""

    @staticmethod
    def forward(ctx: Any, groups: tuple[Group, ...], *parts: Tensor) -> Tensor:
        ctx.groups = groups
        return _put(parts, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = (grad.index_select(0, group.tokens.flatten()) for group in ctx.groups)
        return None, *(part.index_fill_(0, group.padding, 0) for part, group in zip(parts, ctx.groups, strict=True))


def _put(parts: Sequence[Tensor], groups: tuple[Group, ...]) -> Tensor:
    """Parts (n · L, F) into one row (T, F); padding falls behind its end."""
    length = sum(len(group.into) - len(group.padding) for group in groups)
    row = parts[0].new_empty(length + 1, parts[0].shape[1])
    for part, group in zip(parts, groups, strict=True):
        row.index_copy_(0, group.into, part)
    return row[:-1]
