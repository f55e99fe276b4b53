"""Choosing by likelihood: which of a record's choices a model finds the likeliest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graftlm.data.collate import Example
from graftlm.data.records import Record
from graftlm.data.task import Task
from graftlm.errors import TaskError
from graftlm.generation.likelihood import target_nats
from graftlm.model.modeling import GraftForConditionalGeneration


def choices_of(task: Task, records: Sequence[Record]) -> list[tuple[str, ...]]:
    """The choices of every record, as the decoder would write them; none at all where the task does not choose.

    Raises: TaskError naming a record without choices beside others that have some, or with a target not among them.
    """
    if "accuracy" not in task.metrics:
        return []
    choices = [task.choices_of(record) for record in records]
    if not any(choices):
        return []
    for record, texts in zip(records, choices, strict=True):
        if not texts:
            raise TaskError(
                f"Record {record.id} has no choices, but others have; add `choices` to it or to the task file."
            )
    return choices


def likeliest(
    model: GraftForConditionalGeneration,
    sources: Sequence[list[int]],
    choices: Sequence[Sequence[list[int]]],
    scoring: str = "sum",
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> list[int]:
    """For each source the number of the choice with the highest log-likelihood, the first one where two are equal.

    Sources and choices are token ids; a choice ends with EOS, which counts, so that "no" does not contain "no idea".
    `scoring` sums over tokens, or takes their mean. Each source is read once for each of its choices.
    """
    examples = [Example(source, choice) for source, row in zip(sources, choices, strict=True) for choice in row]
    nats = target_nats(model, examples, batch_size=batch_size, progress=progress)
    if scoring == "mean":
        nats = [total / len(example.labels) for total, example in zip(nats, examples, strict=True)]
    costs = iter(nats)
    return [min(range(len(row)), key=[next(costs) for _ in row].__getitem__) for row in choices]
