"""evaluate: a model on a task, as the record that reports are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase

from graftlm.data.collate import encode
from graftlm.data.records import Record
from graftlm.data.task import Task
from graftlm.evaluation.loss import loss_and_source_gain
from graftlm.evaluation.metrics import REGISTRY
from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.versions import versions

SAMPLES = 5
"""Predictions that a record shows."""


def evaluate(
    model: GraftForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    split: str = "test",
    *,
    batch_size: int = 16,
    limit: int | None = None,
    model_name: str,
    encoder_name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Loss, source gain and the task's metrics on (the first `limit` records of) a split, as a JSON record.

    `progress` is called with the work done and in all; each example is scored twice and decoded once.
    Raises: TaskError for data that cannot be used, or with fewer than two different sources.
    """
    records = task.records(split)[:limit]
    source_limit = task.source_limit(model.config.max_position_embeddings)
    examples = [encode(record, task, tokenizer, source_limit) for record in records]
    scored = loss_and_source_gain(model, examples, batch_size=batch_size, progress=_part(progress, 0, 3 * len(records)))
    predictions = generate_texts(
        model,
        tokenizer,
        [task.source(record) for record in records],
        max_new_tokens=task.max_new_tokens,
        num_beams=task.num_beams,
        batch_size=batch_size,
        source_limit=source_limit,
        truncate=task.truncate,
        progress=_part(progress, 2 * len(records), 3 * len(records)),
    )
    references = [task.references(record) for record in records]
    metrics = scored | {name: REGISTRY[name](predictions, references) for name in task.metrics}
    return {
        "task": task.name,
        "split": split,
        "metrics": {name: metric.to_dict() for name, metric in metrics.items()},
        "n": len(records),
        "model": model_name,
        "encoder": encoder_name,
        "versions": versions("sacrebleu") | _signatures(metrics),
        "decoding": {
            "max_new_tokens": task.max_new_tokens,
            "num_beams": task.num_beams,
            "do_sample": False,
            "source_limit": source_limit,
            "truncate": task.truncate,
        },
        "data_sha256": task.data_hash(split),
        "samples": _samples(task, records, predictions),
    }


def _samples(task: Task, records: list[Record], predictions: list[str]) -> list[dict[str, Any]]:
    return [
        {"source": task.source(record), "prediction": text, "references": list(task.references(record))}
        for record, text in zip(records[:SAMPLES], predictions, strict=False)
    ]


def _signatures(metrics: dict[str, Metric]) -> dict[str, str]:
    """What sacrebleu calls the exact variant of each of its metrics."""
    return {name: metric.signature for name, metric in metrics.items() if metric.signature is not None}


def _part(progress: Callable[[int, int], None] | None, before: int, total: int) -> Callable[[int, int], None] | None:
    """Progress of one part of a longer work."""
    return None if progress is None else lambda done, _: progress(before + done, total)
