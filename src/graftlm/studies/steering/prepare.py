"""Task files of the steering study, made of its data folder."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from graftlm.files import atomic_folder
from graftlm.studies.data import local_files
from graftlm.studies.steering.tasks import TEXT_SETS, Made, Pairs, Texts

TASK = "task.yaml"
WORDS = range(6, 26)
"""Words of a sentence that a task is made of."""
MADE_ROWS = {"train": 20_000, "validation": 200}
SOURCE_TOKENS, TEXT_TOKENS, MADE_TOKENS = 256, 256, 64

Rows = Iterable[Mapping[str, Any]]


def prepare(tasks: Mapping[str, Pairs | Made | Texts], data: Path, out: Path) -> None:
    """Write NAME/task.yaml and its rows into `out` for each task that is not there yet.

    Raises: TaskError for a file of `data` that is missing.
    """
    for name, task in tasks.items():
        if (out / name).exists():
            continue
        if isinstance(task, Pairs):
            splits: dict[str, Rows] = {
                split: _pairs(file, task) for split, file in local_files(data, [name], task.splits)[name].items()
            }
            settings: dict[str, Any] = {
                "source_template": task.ask.replace("{", "{{").replace("}", "}}") + "{source}",
                "max_source_tokens": SOURCE_TOKENS,
                "max_new_tokens": task.max_new_tokens,
                "truncate": True,
                "metrics": list(task.metrics),
            }
        else:
            texts = {split: list(_texts(data, split)) for split in MADE_ROWS}
            if isinstance(task, Made):
                splits = {split: made_rows(rows, task, MADE_ROWS[split]) for split, rows in texts.items()}
                settings = {"source_template": task.ask + "{source}", "max_new_tokens": MADE_TOKENS}
            else:
                splits = {split: [{"text": text} for text in rows] for split, rows in texts.items()}
                settings = {
                    "objective": dict(task.objective),
                    "source_length": TEXT_TOKENS,
                    "target_length": TEXT_TOKENS,
                }
        _write(out / name, name, settings, splits)


def made_rows(texts: Sequence[str], task: Made, count: int) -> list[dict[str, str]]:
    """Rows of up to `count` sentences, drawn without repetition; the same for the same texts.

    >>> text = "The old river rises in the hills. It falls into the sea at Hull."
    >>> for row in made_rows([text], Made(ask="", share=0.5), 9):
    ...     print(row)
    {'source': 'The river in rises', 'target': 'The old river rises in the hills.'}
    {'source': 'the into Hull. at', 'target': 'It falls into the sea at Hull.'}
    """
    choose = random.Random(0)
    found = sorted({sentence for text in texts for sentence in sentences(text)})
    rows = []
    for sentence in choose.sample(found, min(count, len(found))):
        words = sentence.split()
        rows.append({"source": " ".join(choose.sample(words, round(task.share * len(words)))), "target": sentence})
    return rows


def sentences(text: str) -> list[str]:
    """What stands between ends of sentences, where it has as many words as WORDS has.

    >>> sentences("Yes. The old river rises in the hills! It falls into the sea at Hull.")
    ['The old river rises in the hills!', 'It falls into the sea at Hull.']
    """
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)
    return [" ".join(part.split()) for part in parts if len(part.split()) in WORDS and part.rstrip()[-1:] in ".!?"]


def _pairs(file: Path, task: Pairs) -> Iterator[Mapping[str, Any]]:
    for row in _rows(file):
        if row["lang"] == task.lang:
            yield {name: row[name] for name in ("id", "source", "target", "references") if row.get(name)}


def _texts(data: Path, split: str) -> Iterator[str]:
    for files in local_files(data, TEXT_SETS, [split]).values():
        for row in _rows(files[split]):
            yield row["text"]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _write(folder: Path, name: str, settings: Mapping[str, Any], splits: Mapping[str, Rows]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as made:
        for split, rows in splits.items():
            with gzip.open(made / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files = {split: f"{split}.jsonl.gz" for split in splits}
        text = yaml.safe_dump({"name": name, **files, **settings}, sort_keys=False, allow_unicode=True)
        (made / TASK).write_text(text, encoding="utf-8")
