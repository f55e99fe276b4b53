"""Test loss and source gain: how well a model predicts the targets, and how much of that it takes from the source."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import torch
import torch.nn.functional as F

from graftlm.data.collate import IGNORED_LABEL, Example, Seq2SeqCollator
from graftlm.errors import TaskError
from graftlm.evaluation.metrics.bootstrap import Metric, measure
from graftlm.generation.inference import inference
from graftlm.model.modeling import GraftForConditionalGeneration


def loss_and_source_gain(
    model: GraftForConditionalGeneration,
    examples: Sequence[Example],
    *,
    batch_size: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Metric]:
    """`loss`: nats per target token, EOS included; `source_gain`: loss with another's source minus loss with its own.

    Every token of the corpus weighs the same; intervals resample examples, for the gain as pairs of both losses.
    Raises: TaskError when all sources are the same, since then no other source exists.
    """
    partners = other_sources([tuple(example.input_ids) for example in examples], seed)
    swapped = [Example(examples[j].input_ids, example.labels) for j, example in zip(partners, examples, strict=True)]
    sums = target_nats(model, [*examples, *swapped], batch_size=batch_size, progress=progress)
    own, other = sums[: len(examples)], sums[len(examples) :]
    tokens = [len(example.labels) for example in examples]
    return {
        "loss": measure(list(zip(own, tokens, strict=True)), per_token),
        "source_gain": measure([(b - a, n) for a, b, n in zip(own, other, tokens, strict=True)], per_token),
    }


def target_nats(
    model: GraftForConditionalGeneration,
    examples: Sequence[Example],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Cross-entropy of each example's target, in nats summed over its tokens."""
    collate = Seq2SeqCollator(model.config.pad_token_id or 0)
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].input_ids), len(examples[i].labels)))[::-1]
    sums = [0.0] * len(examples)
    with inference(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = {name: x.to(model.device) for name, x in collate([examples[i] for i in chosen]).items()}
            logits = model(**batch, use_cache=False).logits.flatten(0, 1).float()
            labels = batch["labels"]
            nats = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none")
            for i, total in zip(chosen, nats.view_as(labels).sum(1, dtype=torch.float64).tolist(), strict=True):
                sums[i] = total
            if progress is not None:
                progress(start + len(chosen), len(order))
    return sums


def other_sources(sources: Sequence[Hashable], seed: int = 0) -> list[int]:
    """For each row the number of a row with another source, at random but fixed by `seed`.

    A permutation of the rows, unless one source fills more than half of them; then its rows share the others.
    Raises: TaskError when all sources are the same.

    >>> other_sources(["a", "b"])
    [1, 0]
    """
    counts = Counter(sources)
    if len(counts) < 2:
        raise TaskError("Source gain compares a source with another one; give at least two examples that differ in it.")
    shuffled = random.Random(seed).sample(range(len(sources)), len(sources))
    rank = {source: i for i, (source, _) in enumerate(Counter(sources[i] for i in shuffled).most_common())}
    # Equal sources side by side, the largest group first: a step of that group's size leaves every group.
    order = sorted(shuffled, key=lambda i: rank[sources[i]])
    step, rest = max(counts.values()), len(order) - max(counts.values())
    if step <= rest:
        partners = order[step:] + order[:step]
    else:
        partners = [order[step + k % rest] for k in range(step)] + order[:rest]
    return [partner for _, partner in sorted(zip(order, partners, strict=True))]


def per_token(sums: list[float]) -> float:
    """Nats per target token, of summed nats and tokens."""
    return sums[0] / sums[1]
