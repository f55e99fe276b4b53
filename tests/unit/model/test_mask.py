"""`visible` in small exact cases, and against transformers' own mask functions."""

from collections.abc import Callable

import pytest
import torch
from transformers import Gemma3TextConfig
from transformers.masking_utils import (
    causal_mask_function,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)
from transformers.models.gemma3.modeling_gemma3 import _bidirectional_window_overlay
from transformers.models.t5gemma2.modeling_t5gemma2 import sliding_window_mask_function

from graftlm.model.mask import visible

LENGTH = 12
WINDOWS: dict[str, tuple[Callable, Callable[[int], tuple[int, int]], bool]] = {
    "causal": (sliding_window_causal_mask_function, lambda w: (w - 1, 0), True),
    "t5gemma": (sliding_window_bidirectional_mask_function, lambda w: (w, w), False),
    "t5gemma2": (
        lambda w: sliding_window_mask_function(w, is_causal=False),
        lambda w: ((w + 1) // 2 - 1, w // 2),
        False,
    ),
    "gemma3": (
        # Gemma 3 halves its window in the config, before the mask function sees it.
        lambda w: _bidirectional_window_overlay(
            Gemma3TextConfig(sliding_window=w, use_bidirectional_attention=True).sliding_window
        ),
        lambda w: (w // 2, w // 2),
        False,
    ),
}


def mask(function: Callable) -> list[list[bool]]:
    index = torch.arange(LENGTH)
    return [[bool(function(0, 0, q, k)) for k in index] for q in index]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", WINDOWS)
def test_the_four_windows(kind: str, width: int) -> None:
    function, window, causal = WINDOWS[kind]
    p = torch.arange(LENGTH)[None]
    found = visible(p, p, torch.ones(1, LENGTH), causal=causal, window=window(width))
    assert found[0, 0].tolist() == mask(function(width))


def test_causal() -> None:
    p = torch.arange(LENGTH)[None]
    assert visible(p, p, torch.ones(1, LENGTH), causal=True)[0, 0].tolist() == mask(causal_mask_function)


def test_windows_count_positions_and_not_slots() -> None:
    """Two memory slots at positions 0 and 1 with a gap of padding, seen from a target at position 2."""
    seen = visible(
        torch.tensor([[2, 3]]), torch.tensor([[0, 1, 1, 1]]), torch.tensor([[1, 1, 0, 0]]), causal=False, window=(1, 0)
    )
    assert seen[0, 0].int().tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]


def test_padding_is_never_seen() -> None:
    valid = torch.tensor([[0, 1, 1], [1, 1, 0]])
    p = torch.tensor([[0, 0, 1], [0, 1, 1]])
    assert visible(p, p, valid, causal=True).int().squeeze(1).tolist() == [
        [[0, 1, 0], [0, 1, 0], [0, 1, 1]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 0]],
    ]
