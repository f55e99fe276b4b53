"""How much each part of a model could do about a task's loss, before anything is tuned."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graftlm.data.collate import Example, Seq2SeqCollator
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.parts import group_of

BATCH = 16


def pulls(model: GraftForConditionalGeneration, examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """Norms of the gradient of the loss per target token on all examples, by the group of parts.

    Of each group `parameters`, `l1` (what steps of size ε in every weight against the sign of its gradient, as Adam's
    first ones, take off the loss for each ε) and `l2` (its root of squares, as of plain gradient descent). An encoder
    that shares the decoder's layers gets its own first, so that both sides count apart; the weights stay as they are.
    """
    model.copy_layers()
    model.requires_grad_(True).eval().zero_grad()
    collate, tokens = Seq2SeqCollator(), sum(len(example.labels) for example in examples)
    for start in range(0, len(examples), BATCH):
        chosen = examples[start : start + BATCH]
        loss = model(**collate(chosen), use_cache=False).loss
        (loss * sum(len(example.labels) for example in chosen) / tokens).backward()
    sums: dict[str, tuple[int, float, float]] = {}
    for name, parameter in model.named_parameters():
        count, total, squares = sums.get(group_of(name), (0, 0.0, 0.0))
        gradient = None if parameter.grad is None else parameter.grad.double()
        if gradient is not None:
            total, squares = total + gradient.abs().sum().item(), squares + gradient.square().sum().item()
        sums[group_of(name)] = count + parameter.numel(), total, squares
    model.zero_grad()
    return {
        group: {"parameters": count, "l1": total, "l2": math.sqrt(squares)}
        for group, (count, total, squares) in sums.items()
    }
