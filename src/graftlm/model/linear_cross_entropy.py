"""Cross-entropy of a linear head that never holds the logits of more than a few rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graftlm.model.kernels import WIDE_BLOCK, linear, trains_wide

IGNORED_LABEL = -100
"""Label of positions that the loss leaves out."""

PRODUCT = {"cpu": 2**24, "cuda": 2**26}
"""Logits that are made at a time: enough rows for the head's weights to be worth reading."""
TRAINED_PRODUCT = {"cpu": 2**25, "cuda": 2**26}
"""As many where the head trains, whose gradient is read and written again for each of them."""
SOFTMAX = {"cpu": 2**18, "cuda": 2**26}
"""Logits whose probabilities are made at a time: what stays in a core's cache, or what keeps a device busy."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What another model finds likely, for K tokens of each row; K may be the whole vocabulary.

    Shapes: ids and probabilities (..., K), `...` those of the labels. Rows that count need a probability above 0; they
    are scaled to sum to 1. A temperature T stands for probabilities made at T, and divides the student's logits.
    """

    ids: Tensor
    probabilities: Tensor
    weight: float = 0.5
    """Share of the teacher in the loss; the labels have the rest."""
    temperature: float = 1.0

    def rows(self, chosen: Tensor | slice) -> "Teacher":
        """What it finds of some rows."""
        return replace(self, ids=self.ids[chosen], probabilities=self.probabilities[chosen])


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """What a row's loss is made of, with p the softmax of its V logits x and Z the sum of their exponentials.

    (1 - w) · [(1 - ε) · -log p(label) + ε / V · Σ_v -log p(v)] + z · (log Z)² + w · T² · Σ_k q_k · -log p_T(id_k)

    ε is `label_smoothing` and z is `z_loss`; w, T, ids and q are the teacher's, p_T the softmax of x / T.
    Source: arXiv 1512.00567 section 7 (ε), 2204.02311 section 5 (z), 1503.02531 section 2 (teacher, whose gradients T²
    keeps as large as the labels').
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    teacher: Teacher | None = None


class LinearLoss(NamedTuple):
    """Nats, in fp32 or wider."""

    total: Tensor
    """Sum over all rows; the one to differentiate."""
    rows: Tensor
    """Of each row, without gradient; 0 where the label does not count. Shape of the labels."""


def linear_cross_entropy(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    softcap: float | None = None,
    terms: LossTerms | None = None,
) -> LinearLoss:
    """Loss of logits = softcap(states · weightᵀ + bias), summed over the rows whose label is not -100.

    Shapes: states (..., D), weight (V, D), bias (V), labels (...). Gradients of what needs them are made in the forward
    pass, while the logits are there: the loss is a sum, so that backward only scales them.
    """
    counted = labels != IGNORED_LABEL
    device, terms = states.device.type, terms or LossTerms()
    if terms.teacher is not None:
        terms = replace(terms, teacher=terms.teacher.rows(counted))
    # Products are made in the type that the head's would have: autocast's, or wide where bf16 is slow.
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
    kind = torch.float32 if trains_wide(states) else kind
    differentiable = torch.is_grad_enabled()
    with torch.autocast(device, enabled=False):
        total, nats = _LinearCrossEntropy.apply(
            states[counted], weight, bias, labels[counted], _Plan(kind, softcap, terms, differentiable)
        )
    return LinearLoss(total, torch.zeros_like(labels, dtype=nats.dtype).masked_scatter_(counted, nats))


class _Plan(NamedTuple):
    kind: torch.dtype
    """Of the matrix products."""
    softcap: float | None
    terms: LossTerms
    differentiable: bool


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        kind, wide = plan.kind, torch.promote_types(plan.kind, torch.float32)
        needs = [plan.differentiable and need for need in ctx.needs_input_grad[:3]]
        d_states = torch.empty_like(states) if needs[0] else None
        d_weight = torch.zeros_like(weight, dtype=wide) if needs[1] else None
        d_bias = torch.zeros_like(weight[:, 0], dtype=wide) if needs[2] else None
        nats = torch.empty(len(states), dtype=wide, device=states.device)
        # A weight that is too wide has a narrow copy, as in autocast; one that is too narrow is widened block by block.
        head = weight.to(kind) if weight.dtype.itemsize > kind.itemsize else weight
        for rows in _chunks(len(states), len(weight), TRAINED_PRODUCT if needs[1] else PRODUCT, states.device):
            x = states[rows].to(kind)
            logits = _logits(x, head, bias).to(wide)
            nats[rows] = _to_gradients(logits, labels[rows], plan, rows, any(needs))
            if d_bias is not None:
                d_bias += logits.sum(0)
            logits = logits.to(kind)
            if d_states is not None:
                d_states[rows] = sum(logits[:, part] @ head[part].to(kind) for part in _blocks(head, kind))
            if d_weight is not None and kind == wide:
                d_weight.addmm_(logits.T, x)
            elif d_weight is not None:
                d_weight += logits.T @ x
        ctx.save_for_backward(d_states, *(None if d is None else d.to(weight.dtype) for d in (d_weight, d_bias)))
        ctx.mark_non_differentiable(nats)
        return nats.sum(), nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # A large gradient is scaled in place where no second backward pass can ask for it again.
        scaled = torch.mul if torch._C._autograd._get_current_graph_task_keep_graph() else Tensor.mul_
        return *(None if d is None else scaled(d, grad) for d in ctx.saved_tensors), None, None


def _logits(x: Tensor, head: Tensor, bias: Tensor | None) -> Tensor:
    made = [
        linear(x, head[part].to(x.dtype), None if bias is None else bias[part].to(x.dtype))
        for part in _blocks(head, x.dtype)
    ]
    return made[0] if len(made) == 1 else torch.cat(made, dim=-1)


def _to_gradients(logits: Tensor, labels: Tensor, plan: _Plan, rows: slice, differentiable: bool) -> Tensor:
    """Nats of some rows, (R); their raw logits, (R, V), become the gradients of the nats."""
    cap, teacher = plan.softcap, plan.terms.teacher
    nats = torch.empty_like(logits[:, 0])
    for part in _chunks(len(logits), logits.shape[1], SOFTMAX, logits.device):
        x, slope = logits[part], None
        terms = plan.terms if teacher is None else replace(plan.terms, teacher=teacher.rows(rows).rows(part))
        if cap is not None:
            x.div_(cap).tanh_()
            slope = 1 - x * x if differentiable else None
            x.mul_(cap)
        nats[part] = _losses(x, labels[part].unsqueeze(-1), terms, differentiable).squeeze(-1)
        if slope is not None:
            x.mul_(slope)
    return nats


def _losses(x: Tensor, labels: Tensor, terms: LossTerms, differentiable: bool) -> Tensor:
    """What `terms` say of logits x, (N, V), and labels, (N, 1) -> (N, 1); x becomes the gradient."""
    teacher, smoothing, z_loss = terms.teacher, terms.label_smoothing, terms.z_loss
    share = 1.0 if teacher is None else 1 - teacher.weight
    normaliser = x.logsumexp(-1, keepdim=True)
    nats = share * (normaliser - (1 - smoothing) * x.gather(-1, labels))
    if smoothing:
        nats -= share * smoothing * x.mean(-1, keepdim=True)
    if z_loss:
        nats += z_loss * normaliser**2
    taught = None
    if teacher is not None:
        heat = teacher.temperature
        wanted = teacher.probabilities.to(x.dtype)
        wanted = wanted * (teacher.weight * heat / wanted.sum(-1, keepdim=True))
        taught = (x / heat).log_softmax(-1)
        nats -= heat * (wanted * taught.gather(-1, teacher.ids)).sum(-1, keepdim=True)
        taught.exp_().mul_(teacher.weight * heat).scatter_add_(-1, teacher.ids, -wanted)
    if differentiable:
        x.sub_(normaliser).exp_()
        if z_loss or teacher is not None:
            x.mul_(share + 2 * z_loss * normaliser)
        x.scatter_add_(-1, labels, torch.full_like(normaliser, -share * (1 - smoothing)))
        if smoothing:
            x.sub_(share * smoothing / x.shape[-1])
        if taught is not None:
            x.add_(taught)
    return nats


def _chunks(count: int, vocabulary: int, logits: dict[str, int], device: torch.device) -> Iterator[slice]:
    size = max(1, logits.get(device.type, logits["cuda"]) // vocabulary)
    return (slice(start, start + size) for start in range(0, count, size))


def _blocks(head: Tensor, kind: torch.dtype) -> list[slice]:
    """Parts of the vocabulary whose weights are in `kind` at a time."""
    step = len(head) if head.dtype == kind else WIDE_BLOCK
    return [slice(start, start + step) for start in range(0, len(head), step)]
