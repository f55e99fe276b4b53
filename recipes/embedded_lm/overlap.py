"""Which word sequences of the built-in tasks are in the training text of the embedded language model.

Writes `overlap.json`, the scan of the whole training text, and `overlap_index.bin`, hashes of a sample of its word
sequences, so that a test can look for a task's own without the text.
"""

import argparse
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus import documents, load_recipe
from graftlm.data.task import SPLITS, Task, builtin_tasks, load_task

LENGTHS = (8, 13)
"""Words in a sequence: 8 for near copies, 13 for what is surely copied."""
INDEXED = LENGTHS[0]
EVERY = 32
"""One of so many sequences is in the index."""
KEY_BYTES = 5


def words(text: str) -> list[str]:
    """Without case and punctuation.

    >>> words("Don't stop, Mr. X!")
    ['don', 't', 'stop', 'mr', 'x']
    """
    return re.findall(r"\w+", text.casefold())


def sequences(row: list[str], length: int) -> Iterator[str]:
    """All runs of `length` words, with a space between words."""
    return (" ".join(row[i : i + length]) for i in range(len(row) - length + 1))


def keys(row: list[str]) -> Iterator[int]:
    """Hashes, cut to `KEY_BYTES`, of those sequences that the sample takes; the same ones in every text."""
    for sequence in sequences(row, INDEXED):
        value = int.from_bytes(hashlib.blake2b(sequence.encode(), digest_size=8).digest(), "little")
        if value % EVERY == 0:
            yield value // EVERY % 256**KEY_BYTES


def read_index(path: Path) -> NDArray[np.uint64]:
    """The keys of the training text, ascending."""
    short = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, KEY_BYTES)
    return np.pad(short, ((0, 0), (0, 8 - KEY_BYTES))).view("<u8").ravel()


def write_index(path: Path, found: set[int]) -> None:
    ordered = np.array(sorted(found), "<u8")
    path.write_bytes(ordered.view(np.uint8).reshape(-1, 8)[:, :KEY_BYTES].tobytes())


def texts(task: Task) -> set[str]:
    """All sources and targets of all splits."""
    records = [record for split in SPLITS for record in task.records(split)]
    return {task.source(record) for record in records}.union(*(task.references(record) for record in records))


def wanted(task: Task) -> dict[int, set[str]]:
    """What to look for, by length: the task's sequences, and as a whole each text that is too short for one."""
    found: dict[int, set[str]] = defaultdict(set)
    for row in map(words, texts(task)):
        for length in LENGTHS:
            found[length].update(sequences(row, length))
        if 0 < len(row) < INDEXED:
            found[len(row)].add(" ".join(row))
    return found


def scan(data: Path, sets: list[str], lookups: dict[int, set[str]]) -> tuple[set[str], set[int], list[dict[str, Any]]]:
    """What of `lookups` is in the training text, the keys of its index, and which text that was."""
    seen: set[str] = set()
    index: set[int] = set()
    read = []
    for name in sets:
        sha256 = hashlib.sha256()
        count = 0
        for text in documents(data, [name], "train"):
            count += 1
            sha256.update(text.encode() + b"\0")
            row = words(text)
            index.update(keys(row))
            for length, targets in lookups.items():
                seen.update(targets.intersection(sequences(row, length)))
        read.append({"set": name, "documents": count, "sha256": sha256.hexdigest()})
    return seen, index, read


def report(task: Task, looked_for: dict[int, set[str]], seen: set[str]) -> dict[str, Any]:
    """One task's part of the record."""
    short = set().union(*(found for length, found in looked_for.items() if length < INDEXED))
    by_length = {
        str(length): {"distinct": len(looked_for[length]), "found": sorted(looked_for[length] & seen)}
        for length in LENGTHS
    }
    return {
        "sha256": {split: task.data_hash(split) for split in SPLITS},
        "sequences": by_length,
        "shorter_texts": {"distinct": len(short), "found": sorted(short & seen)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one subfolder per data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for overlap.json and overlap_index.bin")
    arguments = parser.parse_args()
    tasks = [load_task(name) for name in builtin_tasks()]
    looked_for = {task.name: wanted(task) for task in tasks}
    lookups: dict[int, set[str]] = defaultdict(set)
    for by_length in looked_for.values():
        for length, found in by_length.items():
            lookups[length] |= found
    seen, index, read = scan(arguments.data, load_recipe()["data"]["train"], lookups)
    write_index(arguments.out / "overlap_index.bin", index)
    record = {
        "training_text": read,
        "indexed": {"words": INDEXED, "one_of": EVERY, "key_bytes": KEY_BYTES, "keys": len(index)},
        "tasks": {task.name: report(task, looked_for[task.name], seen) for task in tasks},
    }
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (arguments.out / "overlap.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
