"""The examples of a task to train on, whether it has pairs or texts."""

from __future__ import annotations

from collections.abc import Sequence

from graftlm.data.collate import encode
from graftlm.data.deferred import Item
from graftlm.data.task import Task
from graftlm.data.text_task import TextTask
from graftlm.data.tokenizers import Tokenizers
from graftlm.objectives.text_examples import text_examples


def task_examples(
    task: Task | TextTask,
    split: str,
    tokenizers: Tokenizers,
    positions: tuple[int, int | None],
    seed: int,
    limit: int | None = None,
) -> Sequence[Item]:
    """Examples of a split, or of its first `limit` rows, for a model with `positions` (see Task.source_limit).

    Raises: TaskError for data that is missing or broken, or does not fit.
    """
    if isinstance(task, TextTask):
        return text_examples(task, tokenizers, split, seed, limit)
    records = task.records(split)[:limit]
    return [encode(record, task, tokenizers, task.source_limit(*positions)) for record in records]
