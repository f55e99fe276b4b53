"""Training as a job of a study: it can be stopped, leaves a log and a model, and goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils import logging

from graftlm.adaptation.store import load_graft, save_graft
from graftlm.data.collate import Example
from graftlm.data.deferred import Item
from graftlm.data.mixture import Mixture
from graftlm.data.tokenizers import Tokenizers, tokenizers_of
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.checkpoint import RunFolder
from graftlm.training.settings import TuneSettings
from graftlm.training.teaching import open_teaching
from graftlm.training.tune import tune

MODEL = "model"
"""Folder of the trained model, in that of its job."""


@dataclass(frozen=True, kw_only=True)
class ArmTraining:
    """A job that trains an arm with one seed and one learning rate."""

    arm_name: str
    data: Path
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm_name}-seed-{self.seed}-rate-{self.rate:g}"

    @property
    def heading(self) -> dict[str, Any]:
        """What its record, and those of what is done with its model, begin with."""
        return {"arm": self.arm_name, "seed": self.seed, "rate": self.rate}

    def settings_of(self, budget: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of TuneSettings: those that all arms get, and the arm's own; without phases all weights train."""
        begin = {} if "phases" in own else {"freeze": "none"}
        return {**begin, **budget, **own, "learning_rate": self.rate, "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class AfterTraining:
    """A job that tests the model which a training job left."""

    trained: ArmTraining

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.trained.name}-test"

    def opened(self, folder: Path) -> tuple[GraftForConditionalGeneration, Tokenizers]:
        """That model, in fp32, of the folder of all jobs."""
        start = folder / self.trained.name / MODEL
        model = load_graft(start, dtype=torch.float32)
        return model, tokenizers_of(start, model.config)


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
    keep: bool = True,
) -> dict[str, Any]:
    """Train a model, in place, and leave it in the folder of job `name` in the folder of all jobs; the run's record.

    With `keep` False nothing stays but the log.
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
    if keep:
        save_graft(model, tokenizers, folder / name / MODEL, run=run, replace=True)
    checkpoints.remove()
    return run
