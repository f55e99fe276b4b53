"""The record of an evaluation, read back from its file."""

import json
from pathlib import Path

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from graftlm.errors import RecordError


class Value(BaseModel):
    """A metric's value."""

    value: FiniteFloat


class Row(BaseModel):
    """What one example came to."""

    id: str
    choice: str | None = None
    """What was chosen by likelihood, where the task chooses."""
    statistics: dict[str, list[FiniteFloat]]


class EvaluationRecord(BaseModel):
    """What a comparison needs of a record that `evaluate` made."""

    task: str
    split: str
    n: int = Field(ge=1)
    data_sha256: str
    model: str
    encoder: str | None = None
    metrics: dict[str, Value]
    rows: list[Row]


def read_record(path: str | Path) -> EvaluationRecord:
    """The record in a JSON file. Raises: RecordError for a file that is missing, damaged or no such record."""
    try:
        values = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise RecordError(f"Cannot read {path} ({error.strerror}); give a file that graftlm eval wrote.") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not valid JSON; give a file that graftlm eval wrote.") from error
    try:
        record = EvaluationRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"no field {field!r}" if first["type"] == "missing" else f"{field or 'it'}: {first['msg']}"
        raise RecordError(
            f"{path} is no record to compare ({problem}); write it again with this version's graftlm eval."
        ) from error
    if len(record.rows) != record.n:
        raise RecordError(f"{path} has {len(record.rows)} rows for {record.n} examples; run graftlm eval again.")
    return record
