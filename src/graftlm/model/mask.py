"""Who sees whom, by positions and not by slots."""

from typing import NamedTuple

from torch import Tensor

from graftlm.model.grouping import Group


class PackedMask(NamedTuple):
    """Who sees whom in a row of examples that stand one after the other: each token only those of its own example.

    A mask (n, 1, T, K) and a bias (n, H, T, K) or None for each group of examples.
    """

    queries: tuple[Group, ...]
    keys: tuple[tuple[Group, ...], ...]
    """Of each part that is attended to."""
    masks: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    all_see: bool
    """Every query is sure to see a key."""


def visible(
    queries: Tensor,
    keys: Tensor,
    valid: Tensor,
    *,
    causal: bool,
    window: tuple[int, int] | None = None,
) -> Tensor:
    """Boolean attention mask, True where a query may see a key.

    Shapes: queries (B, T) and keys (B, K) are positions, valid (B, K) is 0 for padding -> (B, 1, T, K).
    `window` = (back, ahead) bounds -ahead <= query - key <= back. The four sliding windows in use are
    (w-1, 0) causal, (w, w) T5Gemma's encoder, ((w+1)//2 - 1, w//2) T5Gemma 2's, (w//2, w//2) bidirectional Gemma 3.
    Source: transformers, masking_utils.py and models/t5gemma2/modeling_t5gemma2.py.

    >>> import torch
    >>> p = torch.arange(4)[None]
    >>> visible(p, p, torch.ones(1, 4), causal=True, window=(1, 0))[0, 0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    distance = queries[:, :, None] - keys[:, None, :]
    seen = valid.bool()[:, None, :].expand_as(distance)
    if causal:
        seen = seen & (distance >= 0)
    if window is not None:
        back, ahead = window
        seen = seen & (distance <= back) & (distance >= -ahead)
    return seen.unsqueeze(1)
