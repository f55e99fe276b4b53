"""For each example another one's source, to see how much of a prediction is read off the source at all."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence

from graftlm.data.collate import Example
from graftlm.errors import TaskError


def with_other_sources(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """The same targets, each with the source of another example. Raises: as `other_sources`."""
    partners = other_sources([tuple(example.input_ids) for example in examples], seed)
    return [Example(examples[j].input_ids, example.labels) for j, example in zip(partners, examples, strict=True)]


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
