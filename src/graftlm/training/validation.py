"""Validation while training: the loss per target token on data that is not trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graftlm.data.collate import Example
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
