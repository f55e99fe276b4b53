"""RMSNorm's own derivative against autograd's."""

import pytest
import torch
from torch import Tensor

from graftlm.model.norm import RMSNorm
from tiny import gap


def plain(x: Tensor, weight: Tensor, eps: float, unit_offset: bool, in_fp32: bool) -> Tensor:
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    if in_fp32:
        return (y * weight.float()).to(x.dtype)
    return (y * (1.0 + weight.float())).to(x.dtype) if unit_offset else weight * y.to(x.dtype)


@pytest.mark.parametrize(("unit_offset", "in_fp32"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("dtype", "weight_dtype", "tolerance"),
    [
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.bfloat16, 0.2),
        (torch.bfloat16, torch.float32, 0.1),  # What autocast feeds it.
    ],
    ids=["fp32", "bf16", "mixed"],
)
def test_value_and_gradients(
    unit_offset: bool, in_fp32: bool, dtype: torch.dtype, weight_dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(16, 1e-6, unit_offset, in_fp32)
    torch.nn.init.normal_(norm.weight)
    norm.to(weight_dtype)
    x = (3 * torch.randn(2, 5, 3, 16)).to(dtype).requires_grad_()
    found, expected = norm(x), plain(x, norm.weight, norm.eps, unit_offset, in_fp32)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    grad = torch.randn(found.shape).to(found.dtype)
    for mine, autograds in zip(
        torch.autograd.grad(found, (x, norm.weight), grad),
        torch.autograd.grad(expected, (x, norm.weight), grad),
        strict=True,
    ):
        assert mine.dtype == autograds.dtype
        assert gap(mine, autograds) <= tolerance * max(1.0, autograds.abs().max().item() / 10)


def test_it_keeps_its_input_and_one_number_a_row() -> None:
    norm = RMSNorm(16, 1e-6, unit_offset=True).bfloat16().requires_grad_(False)
    x = torch.randn(4, 16, dtype=torch.bfloat16, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        norm(x).sum().backward()
    fresh = [tensor for tensor in kept if tensor.data_ptr() not in (x.data_ptr(), norm.weight.data_ptr())]
    assert [tensor.numel() for tensor in fresh] == [4]
