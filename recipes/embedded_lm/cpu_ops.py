"""Causal attention and language-model loss that are quick on a CPU with bfloat16 arithmetic.

Both compute what stock Llama training computes; torch's fused CPU attention and the cross-entropy of a
[tokens, vocabulary] float32 tensor take more than half of a training step at this model size.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from transformers import AttentionInterface


@cache
def _mask(before: int, block: int, repeats: int) -> Tensor:
    """Additive mask [repeats * block, before + block]: `before` keys are open, the rest is causal."""
    mask = torch.full((block, before + block), -1e30, dtype=torch.bfloat16).triu(before + 1)
    return mask.repeat(repeats, 1)


def blocked_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Causal attention without padding, in two blocks of queries, so that a quarter of the scores is never computed.

    Query heads of one key head are stacked along the rows, so keys are not copied for grouped-query attention.
    """
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    repeats, block = heads // groups, length // 2
    parts = []
    for start in (0, block):
        end = start + block
        rows = query[:, :, start:end].reshape(batch * groups, repeats * block, width)
        keys = key[:, :, :end].reshape(batch * groups, end, width)
        values = value[:, :, :end].reshape(batch * groups, end, width)
        scores = torch.baddbmm(_mask(start, block, repeats), rows, keys.transpose(1, 2), alpha=options["scaling"])
        weights = torch.softmax(scores, -1, dtype=torch.bfloat16)
        parts.append(torch.bmm(weights, values).view(batch, heads, block, width))
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register("blocked", blocked_attention)


class HeadLoss(torch.autograd.Function):
    """Mean cross-entropy (nats a token) of `hidden @ weight.T`, keeping only one bfloat16 tensor for backward."""

    @staticmethod
    def forward(ctx: FunctionCtx, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int = 256) -> Tensor:
        hidden, weight = hidden.bfloat16(), weight.bfloat16()
        gradient = torch.empty(len(hidden), len(weight), dtype=torch.bfloat16)
        loss = torch.zeros(())
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            probabilities = torch.softmax(hidden[part] @ weight.T, -1)
            index = targets[part, None]
            correct = probabilities.gather(1, index)
            loss -= correct.float().log().sum()
            gradient[part] = probabilities.scatter_(1, index, correct - 1)
        ctx.save_for_backward(hidden, weight, gradient)
        return loss / len(hidden)

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, gradient = ctx.saved_tensors
        factor = scale[0] / len(hidden)
        return (gradient @ weight).float() * factor, (gradient.T @ hidden).float() * factor, None, None
