"""Two processes, each with a part of the weights, come to what one process comes to."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("sharded_runs.py")
CLOSE = 1e-5
"""Sums are made in another order; relative, for losses, and absolute for weights of size 1."""


CASES = ("full", "shared", "lora", "packed", "tokens", "packed tokens")


def launch(processes: int, folder: Path, *names: str, **environment: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = (command if processes > 1 else [sys.executable]) + [str(SCRIPT), str(folder), *names]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]


def outcome(folder: Path, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return value


@pytest.mark.parametrize("shard", [
    "true",
    pytest.param("false", marks=pytest.mark.slow),
])  # fmt: skip
def test_two_processes_come_to_what_one_does(tmp_path: Path, shard: str) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    launch(1, folders[0], *CASES)
    launch(2, folders[1], *CASES, SHARD=shard)
    for name in CASES:
        one, two = (outcome(folder, name) for folder in folders)
        assert two["resumed_at"] == one["resumed_at"] == ([2] if name == "full" else [])
        assert dict(two["losses"]) == pytest.approx(dict(one["losses"]), rel=CLOSE), name
        for ours, theirs in zip(two["validation"], one["validation"], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=CLOSE)
        assert gap(folders[0], folders[1], name) < CLOSE, name


def gap(first: Path, second: Path, name: str, other: str | None = None) -> float:
    """Largest difference of the weights that two runs came to."""
    mine, theirs = load_file(first / f"{name}.safetensors"), load_file(second / f"{other or name}.safetensors")
    assert mine.keys() == theirs.keys()
    return max((mine[tensor] - theirs[tensor]).abs().max().item() for tensor in mine)


def test_checkpoints_in_parts(tmp_path: Path) -> None:
    one, two, last = (tmp_path / name for name in ("one", "two", "last"))
    for folder in (one, two, last):
        folder.mkdir()
    launch(1, one, "full", "left")
    shutil.copytree(one / "left.run", two / "left.run")
    launch(2, two, "resumed", SHARD="true")
    check(two, one)
    check_files(two / "left.run" / "step-00000006")
    (two / "left.run").rename(two / "done.run")
    launch(2, two, "left", "unbroken", "broken", "full_disk", SHARD="true")
    shutil.copytree(two / "left.run", last / "left.run")
    launch(1, last, "resumed")
    check(last, one)
    # As many processes go on exactly, each with the random numbers that it would have drawn.
    launch(2, two, "mended", SHARD="true")
    assert outcome(two, "broken")["resumed_at"] == [2]
    assert outcome(two, "unbroken")["losses"] == outcome(two, "broken")["losses"]
    assert gap(two, two, "unbroken", "broken") == 0


def check(taken: Path, one: Path) -> None:
    """A run that was taken over came to what one process comes to."""
    assert outcome(taken, "left")["resumed_at"] == [2]
    assert dict(outcome(taken, "left")["losses"]) == pytest.approx(dict(outcome(one, "full")["losses"]), rel=CLOSE)
    assert gap(taken, one, "left", "full") < CLOSE


def check_files(checkpoint: Path) -> None:
    """Each process wrote its own rows."""
    kinds = ("weights", "optimizer", "random")
    expected = [f"{kind}-0000{number}-of-00002.safetensors" for kind in kinds for number in (1, 2)]
    assert {path.name for path in checkpoint.iterdir()} == {*expected, "state.json", "trainer_state.json"}
    first, second = (load_file(checkpoint / f"weights-0000{number}-of-00002.safetensors") for number in (1, 2))
    assert first.keys() == second.keys()
    assert all(abs(len(first[name]) - len(second[name])) <= 1 for name in first)
    assert set(json.loads((checkpoint / "state.json").read_text())["sha256"]) == {*expected, "trainer_state.json"}
