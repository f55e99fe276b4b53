"""Soft-capped attention with its own derivative against what autograd makes of the formula."""

import pytest
import torch
from torch import Tensor

from graftlm.model.capped_attention import capped_attention

CAP, SCALE = 2.0, 0.7


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
    scores = CAP * torch.tanh(q @ k.transpose(-1, -2) * SCALE / CAP)
    weights = torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), -1)
    return (weights * mask.any(-1, keepdim=True)) @ v


@pytest.mark.parametrize("blind", [False, True], ids=["all see", "some see nothing"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)], ids=str)
def test_value_and_gradients(heads: tuple[int, int], blind: bool) -> None:
    torch.manual_seed(0)
    query = torch.randn(3, heads[0], 5, 8, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(3, heads[1], 7, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mask = torch.rand(3, 1, 5, 7) < 0.6
    mask[..., 0] = True
    if blind:
        mask[1, :, 2:4] = False
    given = query, key, value
    found, expected = capped_attention(*given, mask, SCALE, CAP), plain(*given, mask)
    assert (found - expected).abs().max() <= 1e-12
    weights = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(output, given, weights) for output in (found, expected))
    assert all((one - other).abs().max() <= 1e-12 for one, other in zip(ours, theirs, strict=True))
    if blind:
        assert not found[1, :, 2:4].any()
