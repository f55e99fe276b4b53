"""Make the built-in task `snips` from the converted SNIPS data: shorter targets, and small balanced held-out splits.

python recipes/snips/build.py --data DATA --out src/graftlm/data/tasks/snips

DATA holds `train.jsonl.gz`, `validation.jsonl.gz` and `test.jsonl.gz`.
"""

import argparse
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

HELD_OUT = 22
"""Rows of each of the seven domains in validation, and in test."""
FIELDS = ("id", "source", "target", "domain")

Row = dict[str, Any]


def compact(target: str) -> str:
    """The same parse in less than half the tokens.

    >>> compact("[IN:PLAY_MUSIC [SL:MUSIC_ITEM song ] [SL:YEAR 1983 ] ]")
    '[play music [music item: song] [year: 1983]]'
    """
    intents = re.sub(r"\[IN:(\w+)", lambda found: "[" + _words(found[1]), target)
    slots = re.sub(r"\[SL:(\w+)", lambda found: f"[{_words(found[1])}:", intents)
    return slots.replace(" ]", "]")


def expand(target: str) -> str:
    """Inverse of `compact`; no slot's text holds a bracket, and no name a colon."""
    closed = target.replace("]", " ]")
    slots = re.sub(r"\[([a-z ]+):", lambda found: "[SL:" + _name(found[1]), closed)
    return re.sub(r"\[([a-z ]+) (?=\[)", lambda found: f"[IN:{_name(found[1])} ", slots)


def normalised(source: str) -> str:
    """What two rows must differ in to count as two."""
    return " ".join(source.casefold().split())


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def _name(words: str) -> str:
    return words.upper().replace(" ", "_")


def distinct(rows: list[Row], seen: set[str]) -> list[Row]:
    """The first row of each source that is not in `seen`, which gets them all."""
    kept = []
    for row in rows:
        source = normalised(row["source"])
        if source not in seen:
            seen.add(source)
            kept.append(row)
    return kept


def balanced(rows: list[Row]) -> list[Row]:
    """`HELD_OUT` rows of every domain, drawn and ordered by the hash of their ids."""
    drawn = sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())
    domains = sorted({row["domain"] for row in rows})
    chosen = {row["id"] for name in domains for row in [r for r in drawn if r["domain"] == name][:HELD_OUT]}
    return [row for row in drawn if row["id"] in chosen]


def read(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        row["target"], original = compact(row["target"]), row["target"]
        if expand(row["target"]) != original:
            raise SystemExit(f"{row['id']}: {original} cannot be had back from {row['target']}")
    return rows


def write(path: Path, rows: list[Row]) -> None:
    """The same bytes every time."""
    lines = (json.dumps({name: row[name] for name in FIELDS}, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three converted splits")
    parser.add_argument("--out", type=Path, required=True, help="folder of the task")
    arguments = parser.parse_args()
    # Test comes first and training last: what is held out is never trained on.
    seen: set[str] = set()
    splits = {
        name: distinct(read(arguments.data / f"{name}.jsonl.gz"), seen) for name in ("test", "validation", "train")
    }
    for name, rows in splits.items():
        kept = rows if name == "train" else balanced(rows)
        write(arguments.out / f"{name}.jsonl.gz", kept)
        print(f"{name}: {len(kept):,} rows")


if __name__ == "__main__":
    main()
