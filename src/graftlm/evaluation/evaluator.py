"""evaluate: a model on a task, as the record that reports are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase

from graftlm.data.collate import Example, encode
from graftlm.data.records import Record
from graftlm.data.task import Task
from graftlm.data.tokenizers import Tokenizers
from graftlm.errors import ConfigError
from graftlm.evaluation.choices import choices_of, likeliest
from graftlm.evaluation.loss import loss_and_source_gain
from graftlm.evaluation.metrics import REGISTRY
from graftlm.evaluation.metrics.bootstrap import Metric
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.versions import versions

SAMPLES = 5
"""Examples that a record shows in full."""

Progress = Callable[[int, int], None]


def evaluate(
    model: GraftForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase | Tokenizers,
    task: Task,
    split: str = "test",
    *,
    batch_size: int = 16,
    limit: int | None = None,
    num_beams: int | None = None,
    model_name: str,
    encoder_name: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Loss, source gain and the task's metrics on (the first `limit` records of) a split, as a JSON record.

    Its `rows` hold, for every example, the text written (`prediction`) and the choice taken (`choice`), as far as a
    metric reads them, and each metric's `statistics`: their sums over all rows make the metric's value.
    `num_beams` replaces the task's. `progress` is called with the work done and in all; each example is scored twice,
    its choices once, and it is decoded once.
    Raises: TaskError for data that cannot be used, or with fewer than two different sources; ConfigError for
    `num_beams` where no metric reads what the model writes.
    """
    records = task.records(split)[:limit]
    source_limit = task.source_limit(model.config.max_position_embeddings, model.config.source_positions)
    tokenizers = Tokenizers.of(tokenizer, model.config)
    examples = [encode(record, task, tokenizers, source_limit) for record in records]
    choices = choices_of(task, records)
    written = [name for name in task.metrics if not (choices and name == "accuracy")]
    if num_beams is not None:
        if not written:
            raise ConfigError(f"No metric of task {task.name} reads what the model writes; leave beams out.")
        task = task.model_copy(update={"num_beams": num_beams})
    work = [2 * len(records), sum(map(len, choices)), len(records) if written else 0]
    parts = [_part(progress, sum(work[:i]), sum(work)) for i in range(len(work))]

    metrics = loss_and_source_gain(model, examples, batch_size=batch_size, progress=parts[0])
    outputs: dict[str, list[str]] = {}
    references = [task.references(record) for record in records]
    if choices:
        outputs["choice"] = _choose(model, tokenizers, task, examples, choices, batch_size, parts[1])
        accepted = [(task.target(record), *row) for record, row in zip(records, references, strict=True)]
        metrics["accuracy"] = REGISTRY["accuracy"](outputs["choice"], accepted)
    if written:
        outputs["prediction"] = _write(model, tokenizers, task, records, batch_size, source_limit, parts[2])
        metrics |= {name: REGISTRY[name](outputs["prediction"], references) for name in written}
    shown = [{name: texts[i] for name, texts in outputs.items()} for i in range(len(records))]
    return {
        "task": task.name,
        "split": split,
        "metrics": {name: metric.to_dict() for name, metric in metrics.items()},
        "n": len(records),
        "model": model_name,
        "encoder": encoder_name,
        "versions": versions("sacrebleu") | _signatures(metrics),
        "decoding": _decoding(task, source_limit),
        "data_sha256": task.data_hash(split),
        "samples": _samples(task, records[:SAMPLES], shown[:SAMPLES]),
        "rows": _rows(records, shown, metrics),
    }


def _choose(
    model: GraftForConditionalGeneration,
    tokenizers: Tokenizers,
    task: Task,
    examples: list[Example],
    choices: list[tuple[str, ...]],
    batch_size: int,
    progress: Progress | None,
) -> list[str]:
    sources = [example.input_ids for example in examples]
    ids = [[tokenizers.encode_target(text) for text in row] for row in choices]
    best = likeliest(model, sources, ids, task.scoring, batch_size=batch_size, progress=progress)
    return [row[i] for row, i in zip(choices, best, strict=True)]


def _write(
    model: GraftForConditionalGeneration,
    tokenizers: Tokenizers,
    task: Task,
    records: list[Record],
    batch_size: int,
    source_limit: int,
    progress: Progress | None,
) -> list[str]:
    return generate_texts(
        model,
        tokenizers,
        [task.source(record) for record in records],
        max_new_tokens=task.max_new_tokens,
        num_beams=task.num_beams,
        batch_size=batch_size,
        source_limit=source_limit,
        truncate=task.truncate,
        progress=progress,
    )


def _decoding(task: Task, source_limit: int) -> dict[str, Any]:
    return {
        "max_new_tokens": task.max_new_tokens,
        "num_beams": task.num_beams,
        "do_sample": False,
        "source_limit": source_limit,
        "truncate": task.truncate,
        "scoring": task.scoring,
    }


def _samples(task: Task, records: list[Record], shown: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [
        {"source": task.source(record), **texts, "references": list(task.references(record))}
        for record, texts in zip(records, shown, strict=True)
    ]


def _rows(records: list[Record], shown: list[dict[str, str]], metrics: dict[str, Metric]) -> list[dict[str, Any]]:
    return [
        {"id": record.id, **texts, "statistics": {name: list(m.statistics[i]) for name, m in metrics.items()}}
        for i, (record, texts) in enumerate(zip(records, shown, strict=True))
    ]


def _signatures(metrics: dict[str, Metric]) -> dict[str, str]:
    """What sacrebleu calls the exact variant of each of its metrics."""
    return {name: metric.signature for name, metric in metrics.items() if metric.signature is not None}


def _part(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one part of a longer work."""
    return None if progress is None else lambda done, _: progress(before + done, total)
