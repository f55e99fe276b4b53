"""A learned bias on attention scores that depends on the distance between query and key."""

import math

import torch
from torch import Tensor, nn

from graftlm.model.stack_config import RelativeBiasConfig


class RelativeBias(nn.Module):
    """One number per head and bucket of distances, shared by all layers of a stack.

    Source: arXiv 1910.10683, section 2.1; transformers, models/t5/modeling_t5.py.
    """

    def __init__(self, config: RelativeBiasConfig, heads: int) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.buckets, heads)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Shapes: positions (B, T) and (B, K) -> (B, H, T, K)."""
        numbers = buckets(keys[:, None, :] - queries[:, :, None], self.config)
        bias: Tensor = self.table(numbers)
        return bias.permute(0, 3, 1, 2)


def buckets(distance: Tensor, config: RelativeBiasConfig) -> Tensor:
    """Bucket of each distance, key position - query position: exact up to half of them, then by logarithm.

    >>> config = RelativeBiasConfig(buckets=8, max_distance=16, bidirectional=True)
    >>> buckets(torch.tensor([-9, -2, -1, 0, 1, 2, 9]), config).tolist()
    [3, 2, 1, 0, 5, 6, 7]
    """
    number, first = config.buckets, torch.zeros_like(distance)
    if config.bidirectional:
        number //= 2
        first = (distance > 0).long() * number
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = config.exact
    # Clamped from below, so that no logarithm of zero is taken where the exact bucket is used anyway.
    far = torch.log(distance.clamp(min=exact).float() / exact) / math.log(config.max_distance / exact)
    beyond = (exact + (far * (number - exact)).long()).clamp(max=number - 1)
    return first + torch.where(distance < exact, distance, beyond)
