"""Test loss and source gain: how well a model predicts the targets, and how much of that it takes from the source."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from graftlm.data.collate import Example
from graftlm.errors import TaskError
from graftlm.evaluation.metrics.bootstrap import Metric, measure
from graftlm.generation.likelihood import target_nats
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
