"""Examples of a packed row, side by side in groups of like lengths."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlm.model import packing
from graftlm.model.grouping import alike, in_groups, joined, spread
from tiny import GRAFTS, batch, graft
from tiny_packs import assert_same

PAIRS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12)


def pairs(lengths: tuple[int, ...]) -> int:
    return lengths[0] * sum(lengths)


@settings(max_examples=60, deadline=None)
@given(lengths=PAIRS, spare=st.integers(0, 3000))
def test_every_example_is_in_one_group_that_wastes_little(lengths: list[tuple[int, int]], spare: int) -> None:
    groups = alike(lengths, spare)
    assert sorted(number for group in groups for number in group) == list(range(len(lengths)))
    for group in groups:
        chosen = [lengths[number] for number in group]
        largest = (max(own for own, _ in chosen), max(memory for _, memory in chosen))
        assert len(group) * pairs(largest) - sum(map(pairs, chosen)) <= spare


def test_like_lengths_are_one_group() -> None:
    assert alike([(7,)] * 5, spare=0) == [[0, 1, 2, 3, 4]]
    assert alike([(30,), (2,), (30,)], spare=800) == [[0, 2], [1]]


@settings(max_examples=30, deadline=None)
@given(lengths=PAIRS, spare=st.integers(0, 3000))
def test_tokens_come_back_to_their_places(lengths: list[tuple[int, int]], spare: int) -> None:
    own = torch.tensor([first for first, _ in lengths])
    groups = in_groups(own, alike(lengths, spare))
    row = torch.randn(1, 2, int(own.sum()), 3, requires_grad=True)
    parts = spread(row, groups)
    starts = (own.cumsum(0) - own).tolist()
    for numbers, part in zip(alike(lengths, spare), parts, strict=True):
        for number, example in zip(numbers, part, strict=True):
            start, length = starts[number], lengths[number][0]
            assert torch.equal(example[:, :length], row[0, :, start : start + length])
    back = joined([part * 2 for part in parts], groups)
    assert torch.equal(back, 2 * row.transpose(1, 2))
    weights = torch.randn_like(back)
    [gradient] = torch.autograd.grad((back * weights).sum(), row)
    assert torch.equal(gradient, 2 * weights.transpose(1, 2))


@pytest.mark.parametrize("spare", [0, 150])
@pytest.mark.parametrize("settings", GRAFTS.values(), ids=GRAFTS)
def test_groups_change_nothing(settings: dict[str, Any], spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example alone in each, and a few in some."""
    monkeypatch.setattr(packing, "SPARE", {"cpu": spare, "cuda": spare})
    assert_same(graft(**settings), batch("both", vocabulary=40))
