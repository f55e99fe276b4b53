"""The task file: what it may say, and one sentence for everything that it may not."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftlm.data.records import Record
from graftlm.data.task import METRICS, Task, builtin_tasks, load_task
from graftlm.errors import TaskError


def write(folder: Path, **fields: Any) -> Path:
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({"name": "toy", "test": "test.jsonl"} | fields))
    return path


def refused(source: str | Path, *parts: str) -> None:
    """The task is refused in one sentence that holds all of `parts`."""
    with pytest.raises(TaskError) as caught:
        load_task(source)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_two_fields_are_enough(tmp_path: Path) -> None:
    task = load_task(write(tmp_path))
    assert (task.name, task.metrics, task.num_beams, task.truncate) == ("toy", ["bleu", "chrf"], 1, False)
    assert task.test == tmp_path / "test.jsonl"
    assert task.train is None


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"id": "a", "source": "one", "target": "two"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    write(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    task = load_task(Path(tmp_path.name) / "task.yaml")
    monkeypatch.chdir("/")
    assert task.records("test") == [Record("a", "one", "two", ("two",), row)]


def test_data_hash_is_that_of_the_stored_bytes(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(b"any bytes")
    assert load_task(write(tmp_path)).data_hash("test") == hashlib.sha256(b"any bytes").hexdigest()


def test_built_in_tasks_load_and_hold_what_they_name() -> None:
    assert "e2e_nlg" in builtin_tasks()
    for name in builtin_tasks():
        task = load_task(name)
        assert task.name == name
        assert len({record.id for record in task.records("test")}) == len(task.records("test"))


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.yaml", "none.yaml", "built-in task", "e2e_nlg")


def test_unknown_name_has_a_close_match() -> None:
    refused("e2enlg", "'e2enlg'", "did you mean 'e2e_nlg'?")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: [", ["line 1: not valid YAML"]),
        ("name: \x00", ["not valid YAML"]),
        ("", ["must hold fields"]),
        ("- a", ["must hold fields"]),
        ("name: a", ["names no data"]),
        ("test: t.jsonl", ["'name' is missing"]),
        ("1: 2\nname: a", ["must hold fields"]),
    ],
)
def test_files_that_are_no_task(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    refused(path, str(path), *parts)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"metric": ["bleu"]}, ["unknown field 'metric'", "did you mean 'metrics'?"]),
        ({"metrics": ["blue"]}, ["unknown metric 'blue'", "did you mean 'bleu'?", *METRICS]),
        ({"max_new_tokens": 0}, ["max_new_tokens", "greater than or equal to 1"]),
        ({"num_beams": "many"}, ["num_beams: it should be a valid integer"]),
        ({"metrics": "bleu"}, ["metrics: it should be a valid list"]),
        ({"name": ""}, ["name"]),
        ({"test": 3}, ["test"]),
        ({"source_template": "{source"}, ["source_template", "'}'"]),
        ({"target_template": "{}"}, ["target_template", "plain name"]),
        ({"metrics": ["accuracy"], "choices": [True, False]}, ["choices: each must be text", "in quotes"]),
        ({"metrics": ["accuracy"], "choices": "yes"}, ["choices: it should be a valid list"]),
        ({"metrics": ["accuracy"], "choices": ["yes"]}, ["choices: there must be at least two"]),
        ({"metrics": ["accuracy"], "choices": ["a", "b", " a"]}, ["choices: ' a' is there twice"]),
        ({"metrics": ["accuracy"], "scoring": "max"}, ["scoring: it should be 'sum' or 'mean'"]),
        ({"choices": ["yes", "no"]}, ["'choices' only matters to the metric 'accuracy'; add it to metrics."]),
        ({"scoring": "mean"}, ["'scoring' only matters to the metric 'accuracy'; add it to metrics."]),
        ({"target_template": "{target!r:>9}"}, ["target_template", "plain name"]),
    ],
)
def test_fields_that_cannot_be_used(tmp_path: Path, fields: dict[str, Any], parts: list[str]) -> None:
    path = write(tmp_path, **fields)
    refused(path, str(path), *parts)


def test_templates_fill_in_fields_of_the_row() -> None:
    task = Task(name="t", source_template="{lang}: {source} {{{year}}}", target_template="<{target}>")
    record = Record("1", "hi", "yo", ("yo", "hey"), {"lang": "en", "year": 1840})
    assert task.source(record) == "en: hi {1840}"
    assert task.target(record) == "<yo>"
    assert task.references(record) == ("<yo>", "<hey>")


def test_templates_cannot_reach_into_values() -> None:
    with pytest.raises(TaskError, match=r"source\.__class__"):
        Task(name="t", source_template="{source.__class__}").source(Record("1", "hi"))


def test_unknown_field_of_a_template_names_the_record() -> None:
    task = Task(name="t", source_template="{langs}: {source}")
    with pytest.raises(
        TaskError, match=r"\{langs\}, which record r7 .* \(did you mean 'lang'\?\); it has lang, id, so"
    ):
        task.source(Record("r7", "hi", fields={"lang": "en"}))


def test_split_without_data_and_unknown_split(tmp_path: Path) -> None:
    task = load_task(write(tmp_path))
    with pytest.raises(TaskError, match="no train data; add a line `train: FILE`"):
        task.records("train")
    with pytest.raises(TaskError, match="no split 'dev'; choose one of train, validation, test"):
        task.records("dev")
    with pytest.raises(TaskError, match=r"Cannot read .*test\.jsonl"):
        task.data_hash("test")


def test_source_limit_is_the_smaller_of_room_and_setting() -> None:
    assert Task(name="t", max_new_tokens=28).source_limit(128) == 100
    assert Task(name="t", max_new_tokens=28, max_source_tokens=50).source_limit(128) == 50
    assert Task(name="t", max_new_tokens=28, max_source_tokens=500).source_limit(128) == 100
    assert Task(name="t", max_new_tokens=28).source_limit(128, 64) == 64
    assert Task(name="t", max_new_tokens=28, max_source_tokens=50).source_limit(128, 64) == 50
    with pytest.raises(TaskError, match="lower max_new_tokens"):
        Task(name="t", max_new_tokens=128).source_limit(128)


def test_settings_travel_without_data() -> None:
    task = Task(name="t", test=Path("x"), metrics=["exact_match"], source_template="Q: {source}", num_beams=4)
    settings = json.loads(json.dumps(task.settings()))
    assert Task.from_settings(settings) == task.model_copy(update={"test": None})
    with pytest.raises(TaskError, match="unknown field 'beams'"):
        Task.from_settings({"name": "t", "beams": 4})


def test_choices_are_rendered_like_targets() -> None:
    task = Task(name="t", metrics=["accuracy"], choices=["yes", "no"], target_template="{lang}: {target}")
    record = Record("1", "s", "no", fields={"lang": "en"})
    assert task.choices_of(record) == ("en: yes", "en: no")
    assert Task(name="t").choices_of(record) == ()
    own = Record("2", "s", "a", fields={"lang": "en"}, choices=("a", "b"))
    assert task.choices_of(own) == ("en: a", "en: b")
    with pytest.raises(TaskError, match=r"target 'oui' of record 3 is not among its 2 choices; correct"):
        task.choices_of(Record("3", "s", "oui", fields={"lang": "fr"}))


def test_plain_task_leaves_texts_alone() -> None:
    assert Task.plain().source(Record("1", "as {it} is")) == "as {it} is"
