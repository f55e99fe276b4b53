"""Training as a job of a study: it can be stopped, leaves a log and a model, and goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers.utils import logging

from graftlm.adaptation.store import save_graft
from graftlm.data.collate import Example
from graftlm.data.deferred import Item
from graftlm.data.mixture import Mixture
from graftlm.data.tokenizers import Tokenizers
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.checkpoint import RunFolder
from graftlm.training.settings import TuneSettings
from graftlm.training.teaching import open_teaching
from graftlm.training.tune import tune

MODEL = "model"
"""Folder of the trained model, in that of its job."""


def quiet() -> None:
    """Let transformers show no bars and no warnings, which several jobs at a time would mix up."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def train(
    model: GraftForConditionalGeneration,
    tokenizers: Tokenizers,
    examples: Mapping[str, Sequence[Item]],
    settings: TuneSettings,
    *,
    validation: Mapping[str, Sequence[Example]],
    folder: Path,
    name: str,
) -> dict[str, Any]:
    """Train a model, in place, and leave it in the folder of job `name` in the folder of all jobs; the run's record.

    Raises: KeyboardInterrupt when it was stopped before the end; the next call goes on from there.
    """
    mixture = Mixture.of(examples)
    checkpoints = RunFolder(folder / name / "checkpoints", {"name": name})
    with Path(folder / f"{name}.log").open("a", encoding="utf-8") as log:
        run = tune(
            model,
            mixture,
            settings,
            Console(file=log),
            name,
            validation=validation,
            run_folder=checkpoints,
            resume=checkpoints.last(),
            teaching=open_teaching(settings, mixture, tokenizers, model.config.decoder.vocab_size),
        )
    if run["interrupted_at"] is not None:
        raise KeyboardInterrupt
    save_graft(model, tokenizers, folder / name / MODEL, run=run, replace=True)
    checkpoints.remove()
    return run
