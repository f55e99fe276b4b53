"""Positions count real tokens, wherever the padding is."""

import torch

from graftlm.model.position import last_token_mask, positions_from_mask

MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])


def test_positions() -> None:
    assert positions_from_mask(MASK).tolist() == [
        [0, 0, 0, 1, 2],
        [0, 1, 2, 2, 2],
        [0, 0, 1, 2, 2],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_last_token() -> None:
    assert last_token_mask(MASK).int().tolist() == [
        [0, 0, 0, 0, 1],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_boolean_masks_count_too() -> None:
    assert torch.equal(positions_from_mask(MASK.bool()), positions_from_mask(MASK))
    assert torch.equal(last_token_mask(MASK.bool()), last_token_mask(MASK))
