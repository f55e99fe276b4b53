"""Validation while training: loss and source gain per target token on data that is not trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graftlm.data.collate import Example
from graftlm.data.other_sources import with_other_sources
from graftlm.generation.likelihood import target_nats
from graftlm.model.modeling import GraftForConditionalGeneration


def validation_losses(
    model: GraftForConditionalGeneration, examples: Mapping[str, Sequence[Example]], batch_size: int
) -> dict[str, float]:
    """Nats per target token, EOS included, on the examples of each task; in the precision of training."""
    return {
        name: math.fsum(target_nats(model, rows, batch_size=batch_size)) / sum(len(row.labels) for row in rows)
        for name, rows in examples.items()
    }


def source_gains(
    model: GraftForConditionalGeneration,
    examples: Mapping[str, Sequence[Example]],
    losses: Mapping[str, float],
    batch_size: int,
) -> dict[str, float]:
    """Loss with another example's source less that with its own, `losses`; of tasks that have several sources."""
    several = {name: rows for name, rows in examples.items() if len({tuple(row.input_ids) for row in rows}) > 1}
    others = {name: with_other_sources(rows) for name, rows in several.items()}
    return {name: loss - losses[name] for name, loss in validation_losses(model, others, batch_size).items()}
