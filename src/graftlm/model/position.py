"""Positions, always counted from the attention mask, so that padding on either side changes nothing."""

from torch import Tensor


def positions_from_mask(mask: Tensor) -> Tensor:
    """Number of real tokens before each token; padding gets the nearest valid number.

    Shapes: (B, S) of 0/1 -> (B, S).

    >>> import torch
    >>> positions_from_mask(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])).tolist()
    [[0, 0, 0, 1], [0, 1, 2, 2]]
    """
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def last_token_mask(mask: Tensor) -> Tensor:
    """True at the last real token of each row.

    >>> import torch
    >>> last_token_mask(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])).tolist()
    [[False, False, False, True], [False, False, True, False]]
    """
    counts = mask.long().cumsum(-1)
    return mask.bool() & (counts == counts[:, -1:])
