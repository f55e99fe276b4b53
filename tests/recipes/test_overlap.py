"""The built-in tasks are not in the training text of the embedded language model, as far as hashes can tell.

The record holds the scan of the whole training text, and is tied to the task files by their hashes. The index holds one
in 32 of the text's 8-word sequences as 5 bytes. It takes 389,727 of 2^40 values, so that a key is found by chance with
a probability of 3.5e-7, and one of the tasks' 4,000 or so with 0.15 %.
"""

import gzip
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from graftlm.data.task import SPLITS, builtin_tasks, load_task

RECIPE = Path(__file__).parents[2] / "recipes" / "embedded_lm"
RECORD = json.loads((RECIPE / "overlap.json").read_text(encoding="utf-8"))
NAMES = {
    "harry potter and the deathly hallows part 2",
    "in south georgia and the south sandwich islands",
    "tinker bell and the legend of the neverbeast",
}
"""All that the tasks share with the training text: two films and a territory that users of SNIPS ask for."""
NOVEL = (
    "I have just returned from a visit to my landlord—the solitary neighbour that I shall be troubled with. This is "
    "certainly, a beautiful country! In all England, I do not believe that I could have fixed on a situation so "
    "completely removed from the stir of society. A perfect misanthropist's Heaven—and Mr. Heathcliff and I are such a "
    "suitable pair to divide the desolation between us. A capital fellow! He little imagined how my heart warmed "
    "towards him when I beheld his black eyes withdraw so suspiciously under their brows, as I rode up, and when his "
    "fingers sheltered themselves, with a jealous resolution, still further in his waistcoat, as I announced my name."
)
"""From the training text: Emily Brontë, Wuthering Heights, 1847."""


@pytest.fixture(scope="module")
def overlap() -> ModuleType:
    sys.path.insert(0, str(RECIPE))
    try:
        return importlib.import_module("overlap")
    finally:
        sys.path.remove(str(RECIPE))


@pytest.fixture(scope="module")
def index(overlap: ModuleType) -> set[int]:
    return set(overlap.read_index(RECIPE / "overlap_index.bin").tolist())


def test_the_scan_covers_every_built_in_task_as_it_is() -> None:
    assert RECORD["tasks"].keys() == builtin_tasks().keys()
    for name, scanned in RECORD["tasks"].items():
        assert scanned["sha256"] == {split: load_task(name).data_hash(split) for split in SPLITS}


def test_the_scan_found_names_only() -> None:
    found = {"8": set(), "13": set(), "shorter": set()}
    for task in RECORD["tasks"].values():
        found["shorter"].update(task["shorter_texts"]["found"])
        for length, sequences in task["sequences"].items():
            found[length].update(sequences["found"])
    assert found == {"8": NAMES, "13": set(), "shorter": set()}


@pytest.mark.parametrize("name", builtin_tasks())
def test_the_index_holds_nothing_of_a_task_but_names(name: str, overlap: ModuleType, index: set[int]) -> None:
    sequences = overlap.wanted(load_task(name))
    assert len(sequences[8]) == RECORD["tasks"][name]["sequences"]["8"]["distinct"]
    keys = {key for sequence in sequences[8] - NAMES for key in overlap.keys(sequence.split())}
    assert len(keys) > 1_500
    assert not keys & index


def test_the_index_is_that_of_the_record_and_small(index: set[int]) -> None:
    assert len(index) == RECORD["indexed"]["keys"]
    assert (RECIPE / "overlap_index.bin").stat().st_size == 5 * len(index) < 2_500_000


def test_training_text_is_found(overlap: ModuleType, index: set[int]) -> None:
    keys = set(overlap.keys(overlap.words(NOVEL)))
    assert len(keys) > 2
    assert keys <= index


def test_a_near_copy_of_training_text_is_found(overlap: ModuleType, index: set[int]) -> None:
    changed = NOVEL.upper().replace(",", " –").split()
    changed[::25] = ["OTHERWISE"] * len(changed[::25])
    assert index.intersection(overlap.keys(overlap.words(" ".join(changed))))


def test_other_text_is_not_found(overlap: ModuleType, index: set[int]) -> None:
    keys = set(overlap.keys(overlap.words(NOVEL)[::-1]))
    assert keys
    assert not keys & index


def test_a_task_in_the_training_text_would_be_reported(tmp_path: Path) -> None:
    record = load_task("e2e_nlg").records("test")[0]
    short = next(r.source for r in load_task("snips").records("test") if len(r.source.split()) == 5)
    settings = yaml.safe_load((RECIPE / "recipe.yaml").read_text(encoding="utf-8"))
    for name in settings["data"]["train"]:
        (tmp_path / name).mkdir()
        with gzip.open(tmp_path / name / "train.jsonl.gz", "wt", encoding="utf-8") as lines:
            lines.write(json.dumps({"text": f"So they said: {record.references[1].upper()} And then, {short}"}))
    command = [sys.executable, str(RECIPE / "overlap.py"), "--data", str(tmp_path), "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads((tmp_path / "overlap.json").read_text(encoding="utf-8"))["tasks"]
    assert len(found["e2e_nlg"]["sequences"]["8"]["found"]) >= len(record.references[1].split()) - 8
    assert found["snips"]["shorter_texts"]["found"]
