"""The built-in task snips: what its README promises."""

import re
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from graftlm.data.records import Record
from graftlm.data.task import SPLITS, builtin_tasks, load_task
from graftlm.families.locate import locate

PARSE = re.compile(r"\[([a-z ]+)((?: \[[a-z ]+: [^\[\]]+\])+)\]")
SLOT = re.compile(r"\[([a-z ]+): ([^\[\]]+)\]")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Record]]:
    task = load_task("snips")
    return {split: task.records(split) for split in SPLITS}


def test_sizes(splits: dict[str, list[Record]]) -> None:
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 12167, "validation": 154, "test": 154}
    for name in ("validation", "test"):
        domains = Counter(row.fields["domain"] for row in splits[name])
        assert (len(domains), set(domains.values())) == (7, {22})


def test_no_source_is_there_twice(splits: dict[str, list[Record]]) -> None:
    sources = Counter(" ".join(row.source.casefold().split()) for rows in splits.values() for row in rows)
    assert sources.most_common(1)[0][1] == 1


def test_every_target_is_a_parse_of_its_source(splits: dict[str, list[Record]]) -> None:
    intents, slots = set(), set()
    for row in (row for rows in splits.values() for row in rows):
        found = PARSE.fullmatch(row.target or "")
        assert found, row.target
        intents.add(found[1])
        for name, text in SLOT.findall(found[2]):
            slots.add(name)
            assert text in row.source, row.target
    assert (len(intents), len(slots)) == (7, 39)


def test_targets_fit_into_max_new_tokens(splits: dict[str, list[Record]]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded-lm"), local_files_only=True)
    targets = [row.target for rows in splits.values() for row in rows]
    lengths = [len(ids) for ids in tokenizer(targets, add_special_tokens=False).input_ids]
    assert max(lengths) == 84 < load_task("snips").max_new_tokens
    assert round(sum(lengths) / len(lengths), 1) == 29.7


def test_the_data_of_all_built_in_tasks_is_small() -> None:
    folder = Path(builtin_tasks()["snips"]).parents[1]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2_000_000
