"""What a report reads of the records that training and evaluation leave."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, ValidationError, model_validator

from graftlm.errors import RecordError

TASK_ENCODER = "task_encoder.json"
RUN = "run.json"
ADVICE = "give folders that graftlm tune wrote and records of graftlm eval"


class Interval(BaseModel):
    """A metric's value with its 95 % interval."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class Sample(BaseModel):
    """One example in full."""

    source: str
    prediction: str | None = None
    choice: str | None = None
    references: list[str] = []


class Evaluation(BaseModel):
    """A record of graftlm eval."""

    task: str
    split: str
    n: int
    model: str
    encoder: str | None = None
    data_sha256: str = ""
    metrics: dict[str, Interval] = Field(min_length=1)
    samples: list[Sample]


class Phase(BaseModel):
    """A stretch of a run."""

    freeze: str


class Settings(BaseModel):
    """How a run trained."""

    freeze: str | None
    phases: list[Phase] = []
    """Freeze plans one after the other, where there is not one for the whole run."""
    lora: int | None = None
    """Rank of the encoder's LoRA, if it has one."""
    decoder_adapter: str | None = None
    adapter_rank: int | None = None
    baseline: str | None = None
    """What was trained in place of a task encoder, for comparison."""
    steps: int
    batch_size: int | None = None
    batch_tokens: int | None = None
    packing: bool = False
    learning_rate: FiniteFloat
    label_smoothing: FiniteFloat = 0.0
    z_loss: FiniteFloat = 0.0
    seed: int


class Parameters(BaseModel):
    """How many numbers trained, and how many did not."""

    trainable: int
    frozen: int


class Group(BaseModel):
    """One line of a freeze plan."""

    group: str
    parameters: int
    trains: bool


class Share(BaseModel):
    """A task's part in a mixture."""

    examples: int
    rate: FiniteFloat


class Validation(BaseModel):
    """Loss and source gain in nats per target token after an update."""

    step: int
    loss: FiniteFloat
    source_gain: FiniteFloat | None = None


class Average(BaseModel):
    """The mean of the weights after some updates, and its validation loss where there was data."""

    steps: list[int] = Field(min_length=1)
    loss: FiniteFloat | None


class Bridge(BaseModel):
    """What decoder layers, in rows, read of encoder states, in columns: shares before training and of what was kept."""

    kind: str
    states: list[int] = Field(min_length=1)
    before: list[list[FiniteFloat]] = Field(min_length=1)
    after: list[list[FiniteFloat]] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        rows = (*self.before, *self.after)
        if {len(row) for row in rows} != {len(self.states)} or len(self.before) != len(self.after):
            raise ValueError("before and after need the same rows, and each row a share for each state")
        return self


class Teacher(BaseModel):
    """A model that a run learned from."""

    source: str
    weight: FiniteFloat
    temperature: FiniteFloat


class Training(BaseModel):
    """The record of a run; losses are (update, nats per target token)."""

    settings: Settings
    mixture: dict[str, Share]
    parameters: Parameters
    freeze_plan: list[Group]
    losses: list[tuple[int, FiniteFloat]] = Field(min_length=1)
    validation: list[Validation] = []
    best: Validation | None = None
    average: Average | None = None
    teacher: Teacher | None = None
    seconds: FiniteFloat
    device: str
    interrupted_at: int | None = None
    bridge: Bridge | None = None


class Manifest(BaseModel):
    """The part of a task encoder's manifest that says how it was tuned."""

    run: Training


@dataclass(frozen=True)
class Run:
    """A training record, and the bytes of the weights beside it."""

    training: Training
    stored_bytes: int


@dataclass(frozen=True)
class Records:
    """Everything that was read, by a name for it."""

    runs: dict[str, Run]
    evaluations: dict[str, Evaluation]


def read_records(paths: Sequence[Path]) -> Records:
    """The records in folders and files, each named after its folder or file, or by its path where names are the same.

    A folder holds the record of a run, records of evaluations, or both; its other JSON files are passed over.
    Raises: RecordError for a path that is missing or without a record, and for a damaged record.
    """
    found: list[tuple[Path, Run | Evaluation]] = []
    for path in paths:
        here = [(path, _validated(Evaluation, _json(path), path))] if not path.is_dir() else _folder(path)
        if not here:
            raise RecordError(f"{path} holds no record of a run or an evaluation; {ADVICE}.")
        found += here
    unique = dict(found)
    runs = {path: record for path, record in unique.items() if isinstance(record, Run)}
    evaluations = {path: record for path, record in unique.items() if isinstance(record, Evaluation)}
    return Records(_named(runs), _named(evaluations))


def _folder(folder: Path) -> list[tuple[Path, Run | Evaluation]]:
    found: list[tuple[Path, Run | Evaluation]] = []
    try:
        files = sorted(folder.glob("*.json"))
        stored = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    except OSError as error:
        raise RecordError(f"Cannot read {folder} ({error.strerror}); {ADVICE}.") from error
    for path in files:
        values = _json(path)
        if path.name == TASK_ENCODER:
            found.append((folder, Run(_validated(Manifest, values, path).run, stored)))
        elif path.name == RUN:
            found.append((folder, Run(_validated(Training, values, path), stored)))
        elif isinstance(values, dict) and {"task", "metrics", "samples"} <= values.keys():
            found.append((path, _validated(Evaluation, values, path)))
    return found


Record = TypeVar("Record")


def _named(records: Mapping[Path, Record]) -> dict[str, Record]:
    names = [path.stem if path.suffix == ".json" else path.resolve().name for path in records]
    return {
        # A file's name need not be UTF-8.
        os.fsencode(name if names.count(name) == 1 else path).decode("utf-8", "replace"): record
        for name, (path, record) in zip(names, records.items(), strict=True)
    }


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"Cannot read {path} ({error.strerror}); {ADVICE}.") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not valid JSON; {ADVICE}.") from error


Model = TypeVar("Model", bound=BaseModel)


def _validated(model: type[Model], values: Any, path: Path) -> Model:
    try:
        if not isinstance(values, dict):
            raise RecordError(f"{path} is no record (it holds no JSON object); {ADVICE}.")
        # JSON can spell half of a surrogate pair, which no page can hold.
        json.dumps(values, ensure_ascii=False).encode()
        return model.model_validate(values)
    except UnicodeEncodeError as error:
        raise RecordError(f"{path} holds half of a surrogate pair; repair the text.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"no field {where!r}" if first["type"] == "missing" else f"{where}: {first['msg']}"
        raise RecordError(f"{path} is no record that a report can be made of ({problem}); {ADVICE}.") from error
