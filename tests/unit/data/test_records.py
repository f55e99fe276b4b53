"""Data files: JSON lines in all their accepted forms, and one sentence with a line number for the others."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from graftlm.data.records import Record, read_records
from graftlm.errors import TaskError

GOOD = {"id": "a", "source": "one", "target": "two"}


def write(path: Path, *rows: Any) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_plain_and_compressed_files(tmp_path: Path, name: str) -> None:
    assert read_records(write(tmp_path / name, GOOD)) == [Record("a", "one", "two", ("two",), GOOD)]


def test_references_and_other_fields_are_kept(tmp_path: Path) -> None:
    row = GOOD | {"references": ["two", "zwei"], "lang": "en"}
    (record,) = read_records(write(tmp_path / "d.jsonl", row))
    assert record.references == ("two", "zwei")
    assert record.values()["lang"] == "en"


def test_choices_are_kept(tmp_path: Path) -> None:
    with_choices, without = read_records(write(tmp_path / "d.jsonl", GOOD | {"choices": ["two", "three"]}, GOOD))
    assert with_choices.choices == ("two", "three")
    assert without.choices == ()


def test_aliases_and_numbers_for_missing_ids(tmp_path: Path) -> None:
    records = read_records(write(tmp_path / "d.jsonl", "", {"prompt": "p", "completion": ""}, GOOD | {"id": 12}))
    assert [(r.id, r.source, r.target, r.references) for r in records] == [
        ("2", "p", "", ("",)),
        ("12", "one", "two", ("two",)),
    ]


def test_targets_may_be_left_out_of_inputs(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"source": "one"})
    (record,) = read_records(path, require_target=False)
    assert (record.target, record.references) == (None, ())


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{broken", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ({"target": "two"}, "no 'source' (or 'prompt')"),
        ({"source": "one"}, "no 'target' (or 'completion')"),
        ({"source": " \n", "target": "two"}, "the source is empty"),
        ({"source": 3, "target": "two"}, "'source' must be text, not int"),
        ({"source": "one", "target": ["two"]}, "'target' must be text, not list"),
        (GOOD | {"references": "two"}, "'references' must be a list"),
        (GOOD | {"references": ["two", 2]}, "'references' must be text, not int"),
        (GOOD | {"choices": "two"}, "'choices' must be a list"),
        (GOOD | {"choices": ["two", True]}, "'choices' must be text, not bool"),
        (GOOD | {"choices": ["two"]}, "choices: there must be at least two"),
        (GOOD | {"choices": ["two", "three", "three"]}, "choices: 'three' is there twice; remove one"),
        ('{"source": "\\ud800", "target": "two"}', "surrogate"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, row: Any, problem: str) -> None:
    path = write(tmp_path / "d.jsonl", GOOD, row)
    with pytest.raises(TaskError) as caught:
        read_records(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert problem in str(caught.value)


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"source": "\xff", "target": ""}\n')
    with pytest.raises(TaskError, match="line 1: not valid JSON in UTF-8"):
        read_records(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"Cannot read .*none\.jsonl \(No such file"):
        read_records(tmp_path / "none.jsonl")
    (tmp_path / "plain.jsonl.gz").write_text("not compressed")
    with pytest.raises(TaskError, match=r"plain\.jsonl\.gz .*gzip"):
        read_records(tmp_path / "plain.jsonl.gz")
    whole = write(tmp_path / "cut.jsonl.gz", *[GOOD | {"id": i} for i in range(99)])
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(TaskError, match=r"Cannot read .*cut\.jsonl\.gz"):
        read_records(whole)


def test_file_without_records(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="holds no records"):
        read_records(write(tmp_path / "d.jsonl", "", " "))
