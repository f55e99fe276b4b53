"""Test loss and source gain: how well a model predicts the targets, and how much of that it takes from the source."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graftlm.data.collate import Example
from graftlm.data.other_sources import with_other_sources
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
    both = [*examples, *with_other_sources(examples, seed)]
    sums = target_nats(model, both, batch_size=batch_size, progress=progress)
    own, other = sums[: len(examples)], sums[len(examples) :]
    tokens = [len(example.labels) for example in examples]
    return {
        "loss": measure(list(zip(own, tokens, strict=True)), per_token),
        "source_gain": measure([(b - a, n) for a, b, n in zip(own, other, tokens, strict=True)], per_token),
    }


def per_token(sums: list[float]) -> float:
    """Nats per target token, of summed nats and tokens."""
    return sums[0] / sums[1]
