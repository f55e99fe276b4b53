"""Cross-entropy that keeps nothing of the size of the logits but the logits themselves."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = {"cpu": 2**18, "cuda": 2**26}
"""Logits that are widened to fp32 at a time: what stays in a core's cache, or what keeps a device busy."""


def cross_entropy(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """Sum of -log softmax(logits)[label] over the rows that count, in fp32.

    Shapes: logits (N, V), labels (N), counted (N) boolean -> scalar.
    """
    loss: Tensor = _CrossEntropy.apply(logits, labels, counted)
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Both passes widen the logits a few rows at a time; the second makes the probabilities again."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        labels = labels.unsqueeze(-1)
        normaliser = torch.empty(len(logits), 1, dtype=torch.float32, device=logits.device)
        for rows in _chunks(logits):
            normaliser[rows] = logits[rows].float().logsumexp(-1, keepdim=True)
        ctx.save_for_backward(logits, normaliser, labels, counted)
        return (normaliser - logits.gather(-1, labels))[counted].sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """softmax(logits) - onehot(label), times `grad`; zero in rows that do not count."""
        logits, normaliser, labels, counted = ctx.saved_tensors
        weight = (grad * counted).unsqueeze(-1)
        output = torch.empty_like(logits)
        for rows in _chunks(logits):
            part = (logits[rows].float() - normaliser[rows]).exp_()
            part.scatter_add_(-1, labels[rows], torch.full_like(normaliser[rows], -1.0))
            output[rows] = part.mul_(weight[rows])
        return output, None, None


def _chunks(logits: Tensor) -> Iterator[slice]:
    count, vocabulary = logits.shape
    size = max(1, CHUNK.get(logits.device.type, CHUNK["cuda"]) // vocabulary)
    return (slice(start, start + size) for start in range(0, count, size))
