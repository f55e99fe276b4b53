"""Run one arm on one task: graft, tune, write, load back, evaluate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from graftlm.adaptation.adapt import adapt_to_folder
from graftlm.adaptation.store import load_graft, save_graft
from graftlm.adaptation.task_encoder import load_task_encoder, save_task_encoder
from graftlm.data.collate import encode
from graftlm.data.deferred import Item
from graftlm.data.mixture import Mixture
from graftlm.data.other_sources import with_other_sources
from graftlm.data.task import Task
from graftlm.data.tokenizers import Tokenizers, tokenizers_of
from graftlm.demo.arms import Arm
from graftlm.evaluation.evaluator import evaluate
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.settings import TuneSettings
from graftlm.training.tune import tune

SOURCE = "embedded-lm"
VALIDATION = 48
"""First so many validation examples, for the learning curves."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every arm gets."""

    steps: int = 150
    batch_size: int = 8
    limit: int | None = None
    """Only the first so many test examples."""


def make_graft(recipe: str, folder: Path) -> Path:
    """Graft of the embedded model in a folder, made there on first use."""
    if not folder.exists():
        adapt_to_folder(SOURCE, folder, recipe=recipe)
    return folder


def run_arm(
    name: str,
    arm: Arm,
    task: Task,
    out: Path,
    graft: Path,
    *,
    budget: Budget,
    seed: int,
    console: Console,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Teach `task` to the graft in `graft`, write what was trained to the new folder `out`, and evaluate that.

    Returns the record: arm, task, seed, run (None without training), bytes and parameters, and the evaluation.
    """
    model = load_graft(graft, dtype=torch.float32)
    tokenizers = tokenizers_of(graft, model.config)
    run = None
    if arm.settings is not None:
        run = _tune(arm, model, task, tokenizers, budget, seed, console, title=f"{task.name} {name}")
        if arm.whole:
            save_graft(model, tokenizers, out, run=run)
            model = load_graft(out, dtype=torch.float32)
        else:
            save_task_encoder(model, out, name=task.name, tasks=[task.settings()], run=run)
            model = load_graft(graft, dtype=torch.float32)
            load_task_encoder(model, out)
    record = evaluate(
        model, tokenizers, task, "test", limit=budget.limit, model_name=SOURCE, encoder_name=name, progress=progress
    )
    return {
        "arm": name,
        "task": task.name,
        "seed": seed,
        "parameters": 0 if run is None else run["parameters"]["trainable"],
        "bytes": stored_bytes(out) if run is not None else 0,
        "run": run,
        "evaluation": record,
    }


def stored_bytes(folder: Path) -> int:
    """Bytes of all weights in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def _tune(
    arm: Arm,
    model: GraftForConditionalGeneration,
    task: Task,
    tokenizers: Tokenizers,
    budget: Budget,
    seed: int,
    console: Console,
    title: str,
) -> dict[str, Any]:
    if arm.bidirectional:
        model.set_encoder_attention("bidirectional")
    assert arm.settings is not None
    values = {"steps": budget.steps, "batch_size": budget.batch_size, "learning_rate": arm.learning_rate}
    settings = TuneSettings(**(values | {"eval_every": 50, "seed": seed} | dict(arm.settings)))
    limit = task.source_limit(model.config.max_position_embeddings, model.config.source_positions)
    train = [encode(record, task, tokenizers, limit) for record in task.records("train")]
    if arm.shuffled:
        train = with_other_sources(train, seed)
    validation = [encode(record, task, tokenizers, limit) for record in task.records("validation")[:VALIDATION]]
    return tune(
        model, Mixture[Item].of({task.name: train}), settings, console, title, validation={task.name: validation}
    )
