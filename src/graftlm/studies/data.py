"""The files of a study's data folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graftlm.errors import TaskError


def local_files(data: Path, sets: Sequence[str], splits: Sequence[str]) -> dict[str, dict[str, Path]]:
    """The file of every split of every set, by both names. Raises: TaskError for one that is missing."""
    found = {name: {split: data / name / f"{split}.jsonl.gz" for split in splits} for name in sets}
    for files in found.values():
        for file in files.values():
            if not file.is_file():
                raise TaskError(f"There is no {file}; give --data the folder that holds {', '.join(sets)}.")
    return found
