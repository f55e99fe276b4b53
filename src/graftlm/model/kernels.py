"""The one place that chooses how attention and linear maps are computed, by dtype and device."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ONEDNN_ROWS = 8
"""Below this many rows MKL's matrix-vector product is at least as fast as oneDNN (benchmarks/results/kernels.json)."""


@functools.cache
def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x · weightᵀ + bias. Shapes: (…, D_in) -> (…, D_out).

    fp32 inference on a CPU goes to oneDNN, about twice as fast as the MKL that torch picks on AMD machines; the
    operator has no backward, so training keeps torch's own.
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
    return F.linear(x, weight, bias)


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
) -> Tensor:
    """Grouped-query attention; a query that may see no key reads zeros.

    Shapes: query (B, H, T, E), key and value (B, G, K, E) with H a multiple of G, mask (B, 1, T, K) boolean
    -> (B, H, T, E). A fused kernel serves what it can express; on a CPU below fp32, and for soft-caps, plain matrix
    products do, which are faster there than the fused kernel in bf16 (benchmarks/results/kernels.json).
    """
    fused = softcap is None and (query.device.type != "cpu" or query.dtype == torch.float32)
    if fused and torch.is_autocast_enabled("cpu") and query.device.type == "cpu":
        fused = False
    if fused:
        # The fused kernel leaves rows that see nothing undefined.
        sees = mask.any(-1, keepdim=True)
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask | ~sees, dropout_p=dropout, scale=scale, enable_gqa=True
        )
        return output * sees
    return _grouped_matmul(query, key, value, mask, scale, softcap, dropout)


def _grouped_matmul(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, softcap: float | None, dropout: float
) -> Tensor:
    batch, heads, queries, width = query.shape
    groups = key.shape[1]
    # The query heads of one group are stacked as rows, so that each key head is read once.
    stacked = query.reshape(batch, groups, heads // groups * queries, width)
    scores = (stacked @ key.transpose(-1, -2)).view(batch, groups, heads // groups, queries, -1) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    mask = mask.unsqueeze(2)
    scores = scores.float().masked_fill(~mask, torch.finfo(torch.float32).min)
    weights = torch.softmax(scores, dim=-1) * mask.any(-1, keepdim=True)
    weights = F.dropout(weights, dropout, training=dropout > 0).to(value.dtype)
    output = weights.view(batch, groups, heads // groups * queries, -1) @ value
    return output.view(batch, heads, queries, width)
