"""Started by torchrun: the runs that are named, one after the other; the first process writes what they came to.

Arguments: a folder, and names of CASES or SPECIAL.
"""

import dataclasses
import errno
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

import tiny
from graftlm.data.collate import Example
from graftlm.errors import GraftError
from graftlm.training import history, parts
from graftlm.training import tune as tuning
from graftlm.training.checkpoint import RunFolder, trained
from graftlm.training.ranks import is_first, wait
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune
from updates import Killed, die

EXAMPLES = [Example([1, 5 + i, 9] * (1 + i % 3), [20 + i, 7, 4, 2][: 2 + i % 3]) for i in range(12)]
"""Of lengths so unlike that a mean over processes instead of tokens would be another loss."""
VALIDATION = {"t": EXAMPLES[:5]}
SETTINGS = TuneSettings(steps=6, batch_size=4, learning_rate=1e-2, warmup_steps=2, eval_every=2, weight_decay=0.1)
CASES: dict[str, TuneSettings] = {
    # The encoder has weights of its own.
    "full": SETTINGS,
    # Both sides share all weights, and all of them train.
    "shared": dataclasses.replace(SETTINGS, baseline="causal-full"),
    # Both sides share frozen weights.
    "lora": dataclasses.replace(SETTINGS, lora=3, decoder_adapter="bias"),
    # Each process computes packed rows, in two parts, and the run ends with a mean.
    "packed": dataclasses.replace(SETTINGS, packing=True, accumulation=2, average=2),
    # Odd numbers of examples, and one alone, which leaves a process without any.
    "tokens": dataclasses.replace(SETTINGS, batch_size=None, batch_tokens=24),
    "packed tokens": dataclasses.replace(SETTINGS, batch_size=None, batch_tokens=24, packing=True),
}
SIDES = ("encoder", "decoder")
STOPPED_AFTER = 3


def train(name: str, folder: Path, dropout: float = 0.0) -> None:
    stacks = {side: dataclasses.replace(tiny.LOSSLESS[side], embedding_dropout=dropout) for side in SIDES}
    model = tiny.graft(**tiny.LOSSLESS | stacks | {"share_layers": True})
    run_folder = RunFolder(folder / f"{name}.run", {"name": name})
    more: dict[str, Any] = {"validation": VALIDATION, "run_folder": run_folder, "resume": run_folder.last_whole()}
    result = tune(model, EXAMPLES, CASES.get(name, SETTINGS), Console(quiet=True), "t", **more)
    if is_first():
        save_file(trained(model), folder / f"{name}.safetensors")
        outcome = {key: result[key] for key in ("losses", "validation", "resumed_at")}
        (folder / f"{name}.json").write_text(json.dumps(outcome))


def train_until_stopped(name: str, folder: Path, **more: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        die(patch, STOPPED_AFTER)
        with pytest.raises(Killed):
            train(name, folder, **more)


def train_in_two_lives(name: str, folder: Path) -> None:
    train_until_stopped(name, folder)
    train(name, folder)


def full_disk(folder: Path) -> None:
    """The second process has no room for the second checkpoint: both say so, and the first checkpoint stays."""
    write, written = parts.save_tensors, []

    def fail(tensors: Any, file: Path) -> None:
        written.append(file)
        if parts.rank() == 1 and file.parent.name.startswith(".step-00000004"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(tensors, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "save_tensors", fail)
        with pytest.raises(GraftError, match=r"step-00000004 \(No space left on device\); free some"):
            train("full_disk", folder)
    wait()
    left = [path.name for path in (folder / "full_disk.run").iterdir() if not path.name.startswith("best-")]
    assert left == ["step-00000002"]


SPECIAL: dict[str, Callable[[Path], None]] = {
    "left": partial(train_until_stopped, "left"),
    "resumed": partial(train, "left"),
    "full_disk": full_disk,
    # With random numbers of each process's own.
    "unbroken": partial(train, "unbroken", dropout=0.3),
    "broken": partial(train_until_stopped, "broken", dropout=0.3),
    "mended": partial(train, "broken", dropout=0.3),
}


def main(names: list[str], folder: Path) -> None:
    for name in names:
        # accelerate's launcher sets it once; a run takes it.
        os.environ["ACCELERATE_USE_FSDP"] = os.environ.get("SHARD", "false")
        if name in SPECIAL:
            SPECIAL[name](folder)
        else:
            (train_in_two_lives if CASES[name] is SETTINGS else train)(name, folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    history.EVERY = 1
    # In bf16, where a CPU has it, sums in another order would differ by far more.
    tuning.bf16_pays = lambda: False
    main(sys.argv[2:], Path(sys.argv[1]))
