"""The one place that chooses how attention and linear maps are computed, by dtype and device."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from graftlm.model.capped_attention import capped_attention

ONEDNN_ROWS = 8
"""Below this many rows MKL's matrix-vector product is at least as fast as oneDNN (benchmarks/results/kernels.json)."""

WIDE_ROWS = 32
"""Below this many rows, widening a bf16 weight costs what the product in fp32 gains."""
WIDE_BLOCK = 2048
"""Rows of a bf16 weight that are in fp32 at a time, so that a large vocabulary has no second copy."""


@functools.cache
def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x · weightᵀ + bias. Shapes: (…, D_in) -> (…, D_out).

    fp32 inference on a CPU goes to oneDNN, about twice as fast as the MKL that torch picks on AMD machines; the
    operator has no backward, so training keeps torch's own. Training in bf16 on a CPU without instructions for it goes
    through fp32, two to three times as fast (benchmarks/results/frozen.json).
    """
    parts = (x, weight) if bias is None else (x, weight, bias)
    differentiable = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    if (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not differentiable
        and not torch.is_autocast_enabled("cpu")
        and x.numel() >= ONEDNN_ROWS * x.shape[-1]
        and _has_onednn()
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    if x.dtype == weight.dtype and x.numel() >= WIDE_ROWS * x.shape[-1] and trains_wide(x):
        return _WideLinear.apply(x, weight, bias)  # type: ignore[no-any-return]
    return F.linear(x, weight, bias)


def trains_wide(x: Tensor) -> bool:
    """Products of bf16 are better made in fp32: in training on a CPU that has no instructions for them.

    Inference rounds where transformers does.
    """
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and not torch.is_autocast_enabled("cpu")
        and _emulates_bf16()
    )


@functools.cache
def _emulates_bf16() -> bool:
    """An x86 CPU without bf16 instructions, whose bf16 products have a fraction of its fp32 speed."""
    return (
        torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and not torch.cpu._is_avx512_bf16_supported()
        and not torch.cpu._is_amx_tile_supported()
    )


class _WideLinear(torch.autograd.Function):
    """A bf16 linear map computed in fp32, a block of the weight at a time; what is kept for backward stays in bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.shape = x.shape
        wide = x.reshape(-1, x.shape[-1]).float()
        output = x.new_empty(len(wide), len(weight))
        for start in range(0, len(weight), WIDE_BLOCK):
            rows = slice(start, start + WIDE_BLOCK)
            output[:, rows] = linear(wide, weight[rows].float(), None if bias is None else bias[rows].float())
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.reshape(-1, len(weight))
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        wide = x.reshape(-1, x.shape[-1]).float() if needs_weight else None
        d_x = torch.zeros(len(grad), weight.shape[1]) if needs_x else None
        d_weight = torch.empty_like(weight) if needs_weight else None
        for start in range(0, len(weight), WIDE_BLOCK):
            rows = slice(start, start + WIDE_BLOCK)
            part = grad[:, rows].float()
            if d_x is not None:
                d_x.addmm_(part, weight[rows].float())
            if d_weight is not None and wide is not None:
                d_weight[rows] = part.T @ wide
        return (
            None if d_x is None else d_x.to(grad.dtype).view(ctx.shape),
            d_weight,
            grad.float().sum(0).to(grad.dtype) if needs_bias else None,
        )


class Linear(nn.Linear):
    """torch's Linear, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    dropout: float = 0.0,
    bias: Tensor | None = None,
    all_see: bool = False,
) -> Tensor:
    """Grouped-query attention; a query that may see no key reads zeros, which `all_see` says that there is none of.

    Shapes: query (B, H, T, E), key and value (B, G, K, E) with H a multiple of G, mask (B, 1, T, K) boolean, bias on
    the scores (B, H, T, K) -> (B, H, T, E). A fused kernel serves what it can express; on a CPU below fp32, and for
    soft-caps, plain matrix products do, which are faster there than the fused kernel in bf16
    (benchmarks/results/kernels.json).
    """
    if trains_wide(query):
        wide = None if bias is None else bias.float()
        parts = (query.float(), key.float(), value.float(), mask)
        return attend(*parts, scale=scale, softcap=softcap, dropout=dropout, bias=wide).to(query.dtype)
    fused = softcap is None and (query.device.type != "cpu" or query.dtype == torch.float32)
    if fused and torch.is_autocast_enabled("cpu") and query.device.type == "cpu":
        fused = False
    if fused:
        # The fused kernel leaves rows that see nothing undefined.
        sees = None if all_see else mask.any(-1, keepdim=True)
        seen = mask if sees is None else mask | ~sees
        if bias is not None:
            seen = bias.to(query.dtype).masked_fill(~seen, float("-inf"))
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, dropout_p=dropout, scale=scale, enable_gqa=True
        )
        return output if sees is None else output * sees
    if (
        softcap is not None
        and query.dtype == torch.float32
        and torch.is_grad_enabled()
        and bias is None
        and not dropout
        and not torch.is_autocast_enabled(query.device.type)
    ):
        return capped_attention(query, key, value, mask, scale, softcap)
    return _grouped_matmul(query, key, value, mask, scale, softcap, dropout, bias)


def _grouped_matmul(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float | None,
    dropout: float,
    bias: Tensor | None = None,
) -> Tensor:
    batch, heads, queries, width = query.shape
    groups = key.shape[1]
    # The query heads of one group are stacked as rows, so that each key head is read once.
    stacked = query.reshape(batch, groups, heads // groups * queries, width)
    scores = (stacked @ key.transpose(-1, -2)).view(batch, groups, heads // groups, queries, -1) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.unflatten(1, (groups, -1))
    mask = mask.unsqueeze(2)
    scores = scores.float().masked_fill(~mask, torch.finfo(torch.float32).min)
    weights = torch.softmax(scores, dim=-1) * mask.any(-1, keepdim=True)
    weights = F.dropout(weights, dropout, training=dropout > 0).to(value.dtype)
    output = weights.view(batch, groups, heads // groups * queries, -1) @ value
    return output.view(batch, heads, queries, width)
