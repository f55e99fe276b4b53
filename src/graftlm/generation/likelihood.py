"""How likely a model finds given targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from graftlm.data.collate import IGNORED_LABEL, Example, Seq2SeqCollator
from graftlm.generation.inference import inference
from graftlm.model.modeling import GraftForConditionalGeneration


def target_nats(
    model: GraftForConditionalGeneration,
    examples: Sequence[Example],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Cross-entropy of each example's target, in nats summed over its tokens."""
    collate = Seq2SeqCollator()
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
