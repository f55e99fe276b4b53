"""Attention with a soft-cap on its scores, with a derivative that passes over the scores as seldom as can be."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def capped_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, softcap: float) -> Tensor:
    """softmax(cap · tanh(q · k / cap)) · v in fp32; a query that may see no key reads zeros.

    Shapes: query (B, H, T, E), key and value (B, G, K, E) with H a multiple of G, mask (B, 1, T, K) -> (B, H, T, E).
    """
    output: Tensor = _CappedAttention.apply(query, key, value, mask, scale, softcap)
    return output


class _CappedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, softcap: float
    ) -> Tensor:
        batch, heads, queries, width = query.shape
        groups = key.shape[1]
        # The query heads of one group are stacked as rows, so that each key head is read once.
        q, k, v = (part.reshape(batch * groups, -1, width) for part in (query, key, value))
        capped = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale / softcap).tanh_()
        weights = (capped * softcap).view(batch, groups, heads // groups, queries, -1)
        weights.masked_fill_(~mask.unsqueeze(2), torch.finfo(weights.dtype).min)
        weights = torch.softmax(weights, -1)
        sees = mask.any(-1, keepdim=True)
        if not sees.all():
            weights.mul_(sees.unsqueeze(2))
        weights = weights.view(capped.shape)
        ctx.save_for_backward(q, k, v, capped, weights)
        ctx.scale, ctx.shapes = scale, (query.shape, key.shape)
        return torch.bmm(weights, v).view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, capped, weights = ctx.saved_tensors
        grad = grad.reshape(q.shape)
        d_value = torch.bmm(weights.transpose(1, 2), grad)
        scores = torch._softmax_backward_data(torch.bmm(grad, v.transpose(1, 2)), weights, -1, weights.dtype)
        scores = torch.ops.aten.tanh_backward(scores, capped)
        d_query = torch.baddbmm(q.new_empty(()), scores, k, beta=0, alpha=ctx.scale)
        d_key = torch.baddbmm(q.new_empty(()), scores.transpose(1, 2), q, beta=0, alpha=ctx.scale)
        wide, narrow = ctx.shapes
        return d_query.view(wide), d_key.view(narrow), d_value.view(narrow), None, None, None
