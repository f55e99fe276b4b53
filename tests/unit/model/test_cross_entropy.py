"""The loss against torch's, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F

from graftlm.model import cross_entropy
from graftlm.model.pretrained import token_loss
from tiny import gap

BATCH, LENGTH, VOCABULARY = 3, 7, 50


@pytest.mark.parametrize("num_items", [None, 5])
@pytest.mark.parametrize("chunk", [1, 4 * VOCABULARY, 1000 * VOCABULARY])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-3)], ids=["fp32", "bf16"])
def test_value_and_gradient(
    num_items: int | None, chunk: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK, "cpu", chunk)
    torch.manual_seed(0)
    logits = (5 * torch.randn(BATCH, LENGTH, VOCABULARY)).to(dtype).requires_grad_()
    labels = torch.randint(VOCABULARY, (BATCH, LENGTH))
    labels[0, 3:] = labels[2] = -100
    found = token_loss(logits, labels, num_items)
    expected = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
    expected = expected / ((labels != -100).sum() if num_items is None else num_items)
    assert found.dtype == torch.float32
    assert abs(found.item() - expected.item()) <= 1e-5
    (mine,), (theirs,) = (torch.autograd.grad(3 * loss, logits) for loss in (found, expected))
    assert mine.dtype == dtype
    assert gap(mine, theirs) <= tolerance
    assert not mine[2].any()


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[[1e4, -1e4, 0.0], [float("-inf"), 0.0, 1.0]]], requires_grad=True)
    labels = torch.tensor([[1, 2]])
    loss = token_loss(logits, labels)
    assert abs(loss.item() - F.cross_entropy(logits[0], labels[0]).item()) <= 1e-3
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_without_labels_the_mean_is_undefined_as_in_torch() -> None:
    logits, labels = torch.randn(1, 2, 5), torch.full((1, 2), -100)
    assert token_loss(logits, labels).isnan()
    assert token_loss(logits, labels, 4).item() == 0
