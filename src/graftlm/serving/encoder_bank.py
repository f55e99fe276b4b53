"""Task encoders by the names that clients call them by."""

from __future__ import annotations

import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from graftlm.data import template
from graftlm.data.task import Task
from graftlm.errors import RequestError, ServingError
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.task_encoder import TaskEncoder

UNTUNED_TARGET = 128
"""Longest target in tokens of the model's own encoder, where its positions allow that many."""


@dataclass(frozen=True)
class Served:
    """One task of one encoder, as clients see it."""

    name: str
    task: Task
    encoder: TaskEncoder
    created: int = field(default_factory=lambda: int(time.time()))


class EncoderBank:
    """What can be asked for: the model's own encoder, and any number of task encoders that come and go.

    Names change for new requests only: an accepted one holds the encoder that it was accepted for.
    """

    def __init__(self, model: GraftForConditionalGeneration, name: str) -> None:
        self.own_name = name
        self._model = model
        target = min(UNTUNED_TARGET, model.config.max_position_embeddings // 2)
        plain = Task.plain().model_copy(update={"max_new_tokens": target})
        own = Served(name, plain, model.own_task_encoder)
        self._served = {name: {name: own}}
        """Name of an encoder -> what it serves, by name."""
        self._changing = threading.Lock()

    def all(self) -> list[Served]:
        """Everything that can be asked for."""
        return [served for group in self._served.copy().values() for served in group.values()]

    def get(self, name: str) -> Served:
        """What clients call `name`. Raises: RequestError for an unknown name."""
        known = {served.name: served for served in self.all()}
        if name not in known:
            raise RequestError(
                f"There is no model {name!r}; choose one of {', '.join(known)}.",
                status=404,
                param="model",
                code="model_not_found",
            )
        return known[name]

    def add(self, folder: str | Path, name: str) -> list[Served]:
        """Serve a task encoder as `name`, or as `name:TASK` if it has several tasks; one of that name is replaced.

        Raises: ServingError for a name or a task that cannot be served, CheckpointError for one that does not fit.
        """
        if not re.fullmatch(r"[\w.-]+", name):
            raise ServingError(f"{name!r} cannot be a task encoder's name; use letters, digits, '.', '_' and '-'.")
        if name == self.own_name:
            raise ServingError(f"{name!r} is the name of the model itself; choose another one for the task encoder.")
        # The model attaches what it loads. It is let go at once, and lives as long as the bank or a request holds it.
        attached = f"{name} {uuid.uuid4()}"
        manifest = self._model.add_task_encoder(folder, name=attached)
        encoder = self._model.task_encoders[attached]
        self._model.detach_task_encoder(attached)
        tasks = [Task.from_settings(settings) for settings in manifest["tasks"]]
        names = [name] if len(tasks) == 1 else [f"{name}:{task.name}" for task in tasks]
        group = {one: Served(one, _servable(task), encoder) for one, task in zip(names, tasks, strict=True)}
        with self._changing:
            self._served = {**self._served, name: group}
        return list(group.values())

    def remove(self, name: str) -> None:
        """Stop serving a task encoder. Raises: RequestError for a name that is not one's."""
        with self._changing:
            if name not in self._served or name == self.own_name:
                known = ", ".join(other for other in self._served if other != self.own_name) or "none"
                raise RequestError(f"There is no task encoder {name!r} (there are: {known}).", status=404, param="name")
            self._served = {other: group for other, group in self._served.items() if other != name}


def _servable(task: Task) -> Task:
    fields = {name for _, name in template.parse(task.source_template) if name is not None}
    for other in sorted(fields - {"source"}):
        raise ServingError(
            f"The source_template of task {task.name} uses {{{other}}}, which a prompt does not have; "
            "tune with {source} alone to serve it."
        )
    return task
