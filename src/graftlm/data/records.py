"""Records: the rows of a task's data files, JSON lines, gzip-compressed or not."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlm.errors import TaskError

ALIASES = {"source": "prompt", "target": "completion"}
"""Names that other tools use for the same fields."""


@dataclass(frozen=True)
class Record:
    """One example. `references` are all accepted targets; by default the target alone."""

    id: str
    source: str
    target: str | None = None
    references: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The whole row, for templates."""
    choices: tuple[str, ...] = ()
    """What to choose the target from, where that is this record's own matter."""

    def __post_init__(self) -> None:
        if not self.references and self.target is not None:
            object.__setattr__(self, "references", (self.target,))

    def values(self) -> dict[str, Any]:
        """What a template may name: the fields of the row, and this record's own."""
        return {**self.fields, "id": self.id, "source": self.source, "target": self.target}


def read_records(path: str | Path, *, require_target: bool = True) -> list[Record]:
    """All records of a file of JSON lines (`.gz`: gzip-compressed); blank lines are skipped.

    Raises: TaskError naming file and line, for a file or a line that cannot be used.
    """
    path = Path(path)
    records = [_record(row, path, number, require_target) for number, row in _rows(path)]
    if not records:
        raise TaskError(f"{path} holds no records; give one JSON object per line.")
    return records


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _parse(line, path, number)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TaskError(f"Cannot read {path} ({reason}); give a readable .jsonl or .jsonl.gz file.") from error


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{path}, line {number}: not valid JSON in UTF-8; write one object per line.") from error
    if not isinstance(row, dict):
        raise TaskError(f'{path}, line {number}: not a JSON object; write {{"source": …, "target": …}}.')
    return row


def _record(row: dict[str, Any], path: Path, number: int, require_target: bool) -> Record:
    """A row as a record.

    {"prompt": "a", "completion": "b"} on line 3 becomes Record(id="3", source="a", target="b", references=("b",)).
    """
    where = f"{path}, line {number}"
    source, target = (row.get(name, row.get(alias)) for name, alias in ALIASES.items())
    if source is None or (target is None and require_target):
        name = "source" if source is None else "target"
        raise TaskError(f"{where}: no {name!r} (or {ALIASES[name]!r}); add it.")
    _check_text("source", source, where)
    if target is not None:
        _check_text("target", target, where)
    references, choices = (_texts(row, name, where) for name in ("references", "choices"))
    problem = choices_problem(choices)
    if choices and problem:
        raise TaskError(f"{where}: choices: {problem}.")
    if not source.strip():
        raise TaskError(f"{where}: the source is empty; fill it in or remove the line.")
    return Record(str(row.get("id", number)), source, target, references, row, choices)


def choices_problem(choices: Sequence[str]) -> str | None:
    """Why nothing could be chosen from these, if so.

    >>> choices_problem(["yes", "yes "])
    "'yes ' is there twice; remove one"
    """
    if len(choices) < 2:
        return "there must be at least two"
    seen = Counter(" ".join(choice.split()) for choice in choices)
    again = [choice for choice in choices if seen[" ".join(choice.split())] > 1]
    return f"{again[-1]!r} is there twice; remove one" if again else None


def _texts(row: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    texts = row.get(name) or []
    if not isinstance(texts, list):
        raise TaskError(f"{where}: {name!r} must be a list of texts.")
    for text in texts:
        _check_text(name, text, where)
    return tuple(texts)


def _check_text(name: str, value: object, where: str) -> None:
    if not isinstance(value, str):
        raise TaskError(f"{where}: {name!r} must be text, not {type(value).__name__}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair, which no tokenizer accepts.
        raise TaskError(f"{where}: {name!r} holds half of a surrogate pair; repair the text.") from error
