"""Normalisation: by the root mean square, or by mean and variance."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from graftlm.model.stack_config import StackConfig


def make_norm(config: StackConfig, width: int | None = None) -> nn.Module:
    """The norm that a stack uses, of its own width or another. Layer norm: arXiv 1607.06450."""
    width = config.hidden_size if width is None else width
    if config.norm_kind == "layer":
        return nn.LayerNorm(width, config.norm_eps, bias=config.norm_bias)
    return RMSNorm(width, config.norm_eps, config.norm_unit_offset, config.norm_in_fp32)


class RMSNorm(nn.Module):
    """x / rms(x) · weight, with both orders of casting that released models use.

    With `unit_offset` the factor is 1 + weight, always in fp32; with `in_fp32` weight is too. Shapes: (…, D) -> (…, D).
    Source: arXiv 1910.07467; `unit_offset` as in Gemma (transformers, models/gemma2/modeling_gemma2.py).
    """

    def __init__(self, width: int, eps: float, unit_offset: bool, in_fp32: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.unit_offset = unit_offset
        self.in_fp32 = in_fp32 or unit_offset
        self.weight = nn.Parameter(torch.zeros(width) if unit_offset else torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Normalise.apply(x, self.weight, self.eps, 1.0 if self.unit_offset else 0.0, self.in_fp32)
        return y

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}, unit_offset={self.unit_offset}"


class _Normalise(torch.autograd.Function):
    """The norm with its derivative, which is made from x again: autograd alone would keep fp32 copies of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, offset: float, in_fp32: bool) -> Tensor:
        y = x.float()
        # Autocast would make the product in half precision.
        with torch.autocast(x.device.type, enabled=False):
            scale = torch.rsqrt(torch.linalg.vecdot(y, y).unsqueeze(-1) / y.shape[-1] + eps)
        ctx.save_for_backward(x, weight, scale)
        ctx.offset = offset
        y = y * scale
        if in_fp32:
            return y.mul_(weight.float() + offset).to(x.dtype)
        return weight * y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """With y = x / rms(x) and u = grad · weight: dx = (u - y · mean(u · y)) / rms(x), dweight = Σ grad · y."""
        x, weight, scale = ctx.saved_tensors
        grad, y, factor = grad.float(), x.float(), weight.float() + ctx.offset
        along = grad * y
        d_x = d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (scale.flatten() @ along.reshape(-1, len(weight))).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            # Few passes: mean(u · y) of every row at once by a matrix product, and the rest into one new tensor.
            mean = (along @ factor).unsqueeze(-1).mul_(scale**3).div_(-len(weight))
            d_x = (grad * factor).mul_(scale).addcmul_(y, mean).to(x.dtype)
        return d_x, d_weight, None, None, None
