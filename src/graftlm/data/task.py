"""The task file: data, templates, metrics and decoding settings of one task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from graftlm.data import template
from graftlm.data.records import Record, choices_problem, read_records
from graftlm.data.rows import DatasetSource
from graftlm.data.yaml_file import read_yaml
from graftlm.errors import TaskError, meant

METRICS = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match", "token_f1", "accuracy")
"""Names that a task file may list; evaluation/metrics computes them."""
SPLITS = ("train", "validation", "test")
AnyTask = TypeVar("AnyTask", bound=BaseModel)


Source = Path | DatasetSource


class TaskData(BaseModel):
    """The name of a task, and where the rows that it trains and tests with come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    train: Source | None = None
    validation: Source | None = None
    test: Source | None = None

    def rows(self, split: str) -> Source:
        """Where the rows of a split come from. Raises: TaskError for one that there is not."""
        if split not in SPLITS:
            raise TaskError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
        source: Source | None = getattr(self, split)
        if source is None:
            raise TaskError(f"Task {self.name} has no {split} data; add a line `{split}: FILE` to its task file.")
        return source

    def data_hash(self, split: str) -> str:
        """What changes when the split's data does: the SHA-256 of a file as it is stored, or of a data set's settings.

        Raises: TaskError when it is missing.
        """
        source = self.rows(split)
        if isinstance(source, DatasetSource):
            return hashlib.sha256(source.model_dump_json().encode()).hexdigest()
        try:
            with source.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise TaskError(f"Cannot read {source} ({error.strerror}).") from error

    def settings(self) -> dict[str, Any]:
        """All but the data, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(SPLITS))


class Task(TaskData):
    """Everything about a task but the model. `load_task` makes it from a file."""

    metrics: list[str] = ["bleu", "chrf"]
    source_template: str = "{source}"
    target_template: str = "{target}"
    max_source_tokens: int | None = Field(default=None, ge=1)
    truncate: bool = False
    """Cut sources over the limit, keeping their beginning, instead of refusing them."""
    max_new_tokens: int = Field(default=128, ge=1)
    num_beams: int = Field(default=1, ge=1)
    choices: list[str] = []
    """What `accuracy` lets the model choose from, by likelihood; a record may bring its own."""
    scoring: Literal["sum", "mean"] = "sum"
    """A choice's log-likelihood: the sum over its tokens, or their mean, so that long choices are not at a loss."""

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in METRICS:
                raise ValueError(f"unknown metric {name!r}{_meant(name, METRICS)}; known are {', '.join(METRICS)}")
        return names

    @field_validator("choices", mode="before")
    @classmethod
    def _texts(cls, choices: Any) -> Any:
        if isinstance(choices, list) and not all(isinstance(choice, str) for choice in choices):
            raise ValueError("each must be text; put what YAML reads as something else, such as yes and 1, in quotes")
        return choices

    @field_validator("choices")
    @classmethod
    def _differ(cls, choices: list[str]) -> list[str]:
        problem = choices_problem(choices)
        if choices and problem:
            raise ValueError(problem)
        return choices

    @model_validator(mode="after")
    def _choices_are_used(self) -> Task:
        unused = "choices" if self.choices else "scoring" if self.scoring != "sum" else None
        if unused and "accuracy" not in self.metrics:
            raise ValueError(f"{unused!r} only matters to the metric 'accuracy'; add it to metrics")
        return self

    @field_validator("source_template", "target_template")
    @classmethod
    def _well_formed(cls, text: str) -> str:
        template.parse(text)
        return text

    @classmethod
    def plain(cls) -> Task:
        """Texts as they are, with default decoding; for a model without a task."""
        return cls(name="plain")

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Task:
        """Inverse of `settings`, what a task encoder keeps of its task. Raises: TaskError for what cannot be used."""
        return validated_task(cls, settings, "The task settings")

    def source(self, record: Record) -> str:
        """What the encoder reads. Raises: TaskError when the record lacks a field of the template."""
        return self._render("source_template", record, record.values())

    def target(self, record: Record) -> str:
        """What the decoder writes. Raises: TaskError when the record lacks a field of the template."""
        return self._render("target_template", record, record.values())

    def references(self, record: Record) -> tuple[str, ...]:
        """All accepted outputs, through the target's template."""
        values = record.values()
        return tuple(self._render("target_template", record, values | {"target": text}) for text in record.references)

    def choices_of(self, record: Record) -> tuple[str, ...]:
        """What to choose from, through the target's template: the record's own choices or the task's; empty for none.

        Raises: TaskError when the record's target is not among them, or the template makes two of them the same.
        """
        choices = record.choices or tuple(self.choices)
        if not choices:
            return ()
        if record.target not in choices:
            raise TaskError(
                f"The target {record.target!r} of record {record.id} is not among its {len(choices)} choices"
                f"{_meant(str(record.target), choices)}; correct the target or the choices."
            )
        values = record.values()
        texts = tuple(self._render("target_template", record, values | {"target": choice}) for choice in choices)
        if len(set(texts)) < len(texts):
            raise TaskError(f"The target_template of task {self.name} writes two choices alike; put {{target}} in it.")
        return texts

    def source_limit(self, positions: int, source_positions: int | None = None) -> int:
        """Longest source in tokens, for a model with `positions` positions for source and target together.

        `source_positions` are those of an encoder that has fewer of its own.
        Raises: TaskError when the targets leave no room for a source.
        """
        room = positions - self.max_new_tokens
        if room < 1:
            raise TaskError(
                f"Task {self.name} reserves {self.max_new_tokens} of the model's {positions} positions for the target, "
                "which leaves none for the source; lower max_new_tokens."
            )
        return min(limit for limit in (room, source_positions, self.max_source_tokens) if limit is not None)

    def records(self, split: str) -> list[Record]:
        """Records of `train`, `validation` or `test`. Raises: TaskError when they are missing or broken."""
        return read_records(self.rows(split))

    def _render(self, which: str, record: Record, values: dict[str, Any]) -> str:
        try:
            return template.render(getattr(self, which), values)
        except KeyError as error:
            field = error.args[0]
            known = [name for name, value in values.items() if value is not None]
            raise TaskError(
                f"The {which} of task {self.name} uses {{{field}}}, which record {record.id} does not have"
                f"{_meant(field, known)}; it has {', '.join(known)}."
            ) from error


def load_task(source: str | Path) -> Task:
    """The task in a YAML file, or the built-in task of that name.

    Raises: TaskError in one sentence for a file that is missing, no YAML, or no task.
    """
    path = locate_task(source)
    values = read_task_values(path)
    if "objective" in values:
        raise TaskError(f"{path} is text with an objective, which is for training; give a task of sources and targets.")
    return validated_task(Task, values, str(path))


def read_task_values(path: Path) -> dict[str, Any]:
    """The fields of a task file, with names of files made relative to it. Raises: TaskError."""
    values = read_yaml(path)
    for split in SPLITS:
        if isinstance(values.get(split), str):
            values[split] = path.resolve().parent / values[split]
    if all(values.get(split) is None for split in SPLITS):
        raise TaskError(f"{path} names no data; add a line `train: FILE`, `validation: FILE` or `test: FILE`.")
    return values


def builtin_tasks() -> dict[str, Path]:
    """Task files inside the package, by name."""
    found = Path(str(files("graftlm.data"))).glob("tasks/*/task.yaml")
    return {path.parent.name: path for path in sorted(found)}


def locate_task(source: str | Path) -> Path:
    """The file of a task. Raises: TaskError when there is none."""
    built_in = builtin_tasks()
    if str(source) in built_in:
        return built_in[str(source)]
    path = Path(source)
    if not path.is_file():
        raise TaskError(
            f"There is no task file {str(source)!r}{_meant(str(source), built_in)}; "
            f"give a YAML file or a built-in task ({', '.join(built_in) or 'none in this installation'})."
        )
    return path


def validated_task(kind: type[AnyTask], values: dict[str, Any], where: str) -> AnyTask:
    """A task of a kind from its fields. Raises: TaskError in one sentence."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        if first["type"] == "missing":
            problem = f"the field {field!r} is missing; add it"
        elif first["type"] == "extra_forbidden":
            problem = f"unknown field {field!r}{_meant(field, kind.model_fields)}"
        elif field.split(".")[0] in SPLITS and len(first["loc"]) <= 2:
            problem = f"{str(first['loc'][0])!r} must be the name of a file, or fields such as `dataset: NAME`"
        else:
            problem = f"{field}: {reason}" if field else reason
        raise TaskError(f"{where}: {problem}.") from error


def _meant(word: str, known: Iterable[str]) -> str:
    hint = meant(word, known)
    return f" ({hint})" if hint else ""
