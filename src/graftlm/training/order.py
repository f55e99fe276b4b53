"""The order in which a run visits the examples of a mixture; it depends on the seed alone, so a run can be resumed."""

from __future__ import annotations

import random

from graftlm.data.collate import Example
from graftlm.data.mixture import Mixture

WINDOW = 16
"""Batches that are sorted by length together: enough to save most padding, few enough to keep the draws mixed."""


def training_order(mixture: Mixture[Example], steps: int, batch_size: int, seed: int) -> list[Example]:
    """`steps` batches of `batch_size` examples, one after the other; like lengths share a batch."""
    drawn = [example for _, example in mixture.draws(steps * batch_size, seed)]
    shuffle = random.Random(f"{seed}/batches").shuffle
    order: list[Example] = []
    for start in range(0, len(drawn), WINDOW * batch_size):
        window = sorted(drawn[start : start + WINDOW * batch_size], key=lambda e: (len(e.input_ids), len(e.labels)))
        batches = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        shuffle(batches)
        order += [example for batch in batches for example in batch]
    return order
