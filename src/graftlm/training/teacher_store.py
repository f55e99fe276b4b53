"""The store of a teacher's targets: written once for some documents, then read one document at a time.

FOLDER/
  manifest.json              what the targets are: hashes of teacher, tokenizer and data, settings, and the shards
  shard-00000.safetensors    ids (E) uint32, probabilities (E) float16: entries of all tokens, one after the other
                             starts (N + 1) int64: first entry of each token; documents (M + 1) int64: its first token
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from graftlm.errors import CheckpointError
from graftlm.families.tensors import disk_errors, opened
from graftlm.files import atomic_file, check_new_folder, write_json
from graftlm.objectives.distillation import TeacherRows
from graftlm.objectives.teacher_targets import TeacherTargets
from graftlm.training.teacher import TeacherModel, generator_of

MANIFEST = "manifest.json"
SHARD = "shard-{:05d}.safetensors"
SHARD_TOKENS = 2**17
"""Tokens of a shard: what is lost when writing stops."""
BATCH_TOKENS = 2**13
"""Tokens that the teacher reads at a time."""

Documents = Sequence[npt.NDArray[np.int32]]
Parts = list[npt.NDArray[np.int32]]
IDENTITY = {"teacher": "another teacher", "tokenizer": "another tokenizer", "data": "other documents"}
"""Hashes in a manifest, and what it means that they differ."""


class TeacherStore:
    """Targets of documents by their number. Raises: CheckpointError for a store that is unfinished or damaged."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        self.targets = TeacherTargets(**self.manifest["targets"])
        self._firsts: list[int] = self.manifest["shards"]
        missing = sum(not (self.folder / SHARD.format(number)).is_file() for number in range(len(self._firsts) - 1))
        if missing:
            raise CheckpointError(
                f"{self.folder} lacks {missing} of its {len(self._firsts) - 1} shards; write the targets again with "
                "the same settings, which goes on where it stopped."
            )

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, number: int) -> TeacherRows:
        assert 0 <= number < len(self), number
        shard = bisect_right(self._firsts, number) - 1
        file, place = self.folder / SHARD.format(shard), number - self._firsts[shard]
        try:
            with opened(file) as tensors:
                first, last = _part(tensors, "documents", place, place + 2).tolist()
                starts = _part(tensors, "starts", first, last + 1)
                ids = _part(tensors, "ids", starts[0], starts[-1])
                return TeacherRows(ids, _part(tensors, "probabilities", starts[0], starts[-1]), starts - starts[0])
        except SafetensorError as error:
            raise CheckpointError(f"{file} is damaged; remove it and write the targets again.") from error

    def check(self, **wanted: Any) -> None:
        """Raises: CheckpointError where the hash of the `teacher`, the `tokenizer` or the `data`, or a setting of the
        targets or their `start`, is another."""
        _check(self.folder, self.manifest, wanted)


def stores_in(folder: Path) -> list[TeacherStore]:
    """The store in a folder, or those in folders of it. Raises: CheckpointError as TeacherStore."""
    if (folder / MANIFEST).is_file():
        return [TeacherStore(folder)]
    return [TeacherStore(file.parent) for file in sorted(folder.glob(f"*/{MANIFEST}"))]


def write_targets(
    folder: str | Path,
    documents: Documents,
    teacher: TeacherModel,
    *,
    teacher_hash: str,
    tokenizer_hash: str,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherStore:
    """Store the teacher's targets of documents of token ids; a folder that was begun before is gone on with.

    `progress` is told how many of all tokens are done. A shard has its own draws, so that stopping changes nothing.
    Raises: CheckpointError for a folder of another teacher, tokenizer, data or settings, GraftError for one that holds
    anything else or cannot be written.
    """
    folder = Path(folder)
    wanted: dict[str, Any] = {
        "format": 1,
        "teacher": teacher_hash,
        "tokenizer": tokenizer_hash,
        "data": documents_hash(documents),
        "targets": dataclasses.asdict(teacher.targets) | {"length": teacher.length},
        "start": list(teacher.start),
        "seed": seed,
    }
    if (folder / MANIFEST).is_file():
        manifest = _read_manifest(folder)
        _check(folder, manifest, wanted)
        for left in folder.glob(".shard-*"):  # By a process that was killed.
            left.unlink()
    else:
        check_new_folder(folder)
        manifest = wanted | {"shards": _firsts(documents)}
        write_json(folder / MANIFEST, manifest)
    done, total = 0, sum(map(len, documents))

    def advance(tokens: int) -> None:
        nonlocal done
        done += tokens
        if progress is not None:
            progress(done, total)

    for number, (first, last) in enumerate(pairwise(manifest["shards"])):
        chosen = [documents[i] for i in range(first, last)]
        file = folder / SHARD.format(number)
        if file.is_file():
            advance(sum(map(len, chosen)))
            continue
        generator = generator_of(f"{seed}/{number}", teacher.model.device)
        tensors = _shard(chosen, teacher, generator, advance)
        with atomic_file(file) as temporary, disk_errors():
            save_file(tensors, temporary)
    return TeacherStore(folder)


def documents_hash(documents: Documents) -> str:
    """Hash of documents of token ids, their limits included."""
    made = hashlib.sha256()
    for ids in documents:
        made.update(len(ids).to_bytes(8, "little") + np.asarray(ids, dtype="<i4").tobytes())
    return made.hexdigest()


def _firsts(documents: Documents) -> list[int]:
    """Number of the first document of each shard, and of all documents."""
    firsts, tokens = [0], 0
    for number, ids in enumerate(documents):
        if tokens >= SHARD_TOKENS:
            firsts.append(number)
            tokens = 0
        tokens += len(ids)
    return [*firsts, len(documents)]


def _shard(
    documents: Parts, teacher: TeacherModel, generator: torch.Generator, advance: Callable[[int], None]
) -> dict[str, npt.NDArray[Any]]:
    """Tensors of a shard; like lengths are read together."""
    parts = [ids[at : at + teacher.length] for ids in documents for at in range(0, len(ids), teacher.length)]
    order = sorted(range(len(parts)), key=lambda i: -len(parts[i]))
    rows: dict[int, TeacherRows] = {}
    for batch in _batches(order, parts):
        rows |= zip(batch, teacher.rows([parts[i] for i in batch], generator), strict=True)
        advance(sum(len(parts[i]) for i in batch))
    counts = np.concatenate([np.diff(rows[i].starts) for i in range(len(parts))])
    return {
        "ids": np.concatenate([rows[i].ids for i in range(len(parts))]),
        "probabilities": np.concatenate([rows[i].probabilities for i in range(len(parts))]),
        "starts": np.cumsum([0, *counts], dtype=np.int64),
        "documents": np.cumsum([0, *map(len, documents)], dtype=np.int64),
    }


def _batches(order: list[int], parts: Parts) -> Iterator[list[int]]:
    """Numbers of parts that are read together; the first is the longest."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * len(parts[batch[0]]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def _part(tensors: Any, name: str, begin: int, end: int) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = tensors.get_slice(name)[begin:end].numpy()
    return values


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        TeacherTargets(**manifest["targets"])
        if manifest["format"] != 1 or not {*IDENTITY, "shards"} <= manifest.keys():
            raise ValueError("it is of another version")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder} holds no targets of a teacher ({MANIFEST} is missing, damaged or of another version); "
            "give a folder that targets were written to."
        ) from error
    return manifest  # type: ignore[no-any-return]


def _check(folder: Path, manifest: dict[str, Any], wanted: dict[str, Any]) -> None:
    there, given = manifest | manifest["targets"], wanted | wanted.get("targets", {})
    differ = [name for name in given if name != "targets" and there.get(name) != given[name]]
    if differ:
        found = [IDENTITY.get(name) or f"{name} {there.get(name)} instead of {given[name]}" for name in differ]
        raise CheckpointError(
            f"The targets in {folder} are of {', '.join(found)}; give the same again, or write them anew to another "
            "folder."
        )
