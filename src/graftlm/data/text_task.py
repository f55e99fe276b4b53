"""Text to train on: documents, and the objective that makes examples of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from graftlm.data.task import Task, TaskData, locate_task, read_task_values, validated_task
from graftlm.data.texts import Documents, read_documents
from graftlm.data.tokenizers import Tokenizers


class TextTask(TaskData):
    """Rows with a `text`, and how sources and targets are made of them. `load_training_task` makes it from a file."""

    objective: dict[str, Any]
    """`name` and settings, as objectives.registry has them."""
    source_length: int = Field(default=256, ge=1)
    """Most tokens of a source, special ones included."""
    target_length: int = Field(default=256, ge=1)

    def as_pairs(self) -> Task:
        """What a model that was trained on this alone does: sources as they are, and targets as long as here."""
        return Task(name=self.name, max_source_tokens=self.source_length, max_new_tokens=self.target_length)

    def documents(self, split: str, tokenizers: Tokenizers, limit: int | None = None) -> Documents:
        """Documents of a split, of the first `limit` rows. Raises: TaskError when they are missing or broken."""
        return read_documents(self.rows(split), tokenizers.source, limit)


def load_training_task(source: str | Path) -> Task | TextTask:
    """The task of a file or a built-in one: text where the file has an `objective`, else sources and targets.

    Raises: TaskError in one sentence for a file that is missing, no YAML, or no task.
    """
    path = locate_task(source)
    values = read_task_values(path)
    if "objective" in values:
        return validated_task(TextTask, values, str(path))
    return validated_task(Task, values, str(path))
