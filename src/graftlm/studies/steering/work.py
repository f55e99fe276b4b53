"""The jobs of the steering study: adapt a graft, and tune and test one arm on one task from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graftlm.adaptation.adapt import adapt
from graftlm.adaptation.store import load_graft, save_graft
from graftlm.data.deferred import made
from graftlm.data.records import Record
from graftlm.data.task import Task, load_task
from graftlm.data.text_task import load_training_task
from graftlm.data.tokenizers import Tokenizers, tokenizers_of
from graftlm.evaluation.evaluator import evaluate
from graftlm.families.locate import locate
from graftlm.model.bridge_config import BridgeConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.objectives.task_examples import task_examples
from graftlm.studies.steering.arms import Arm, Cell, Start
from graftlm.studies.steering.prepare import TASK
from graftlm.studies.steering.pulls import pulls
from graftlm.studies.steering.scale import Scale
from graftlm.studies.training import MODEL, ArmTraining, quiet, train
from graftlm.training.settings import TuneSettings


@dataclass(frozen=True, kw_only=True)
class Adapt(ArmTraining):
    """Make a graft of the language model, and train all of it on texts and tasks; `data` are their task files."""

    start: Start
    scale: Scale

    def __call__(self, folder: Path) -> dict[str, Any]:
        """The record of the run, where there is one; the model stays in `folder`. Raises: as training.train."""
        quiet()
        model = adapt(self.scale.model, recipe=self.start.recipe, dtype=torch.float32)
        model.set_encoder_attention(self.start.attention)
        tokenizers = tokenizers_of(locate(self.scale.model), model.config)
        if not self.scale.updates(self.arm_name):
            save_graft(model, tokenizers, folder / self.name / MODEL, run={}, replace=True)
            return self.heading
        room = room_of(model)
        tasks = {name: load_training_task(self.data / name / TASK) for name in self.scale.seen}
        examples = {name: task_examples(task, "train", tokenizers, room, 0) for name, task in tasks.items()}
        held = {name: task_examples(task, "validation", tokenizers, room, 0) for name, task in tasks.items()}
        validation = {name: [made(item) for item in rows[: self.scale.validation]] for name, rows in held.items()}
        settings = TuneSettings(**self.settings)
        run = train(model, tokenizers, examples, settings, validation=validation, folder=folder, name=self.name)
        return self.heading | {"run": run}

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of TuneSettings."""
        shared = {**self.scale.adaptation.settings, "steps": self.scale.updates(self.arm_name)}
        return self.settings_of(shared, self.start.settings)


@dataclass(frozen=True, kw_only=True)
class Tune(ArmTraining):
    """Tune an arm on one task from a start, and test it; only the record stays. `data` are the task files."""

    cell: Cell
    start: str
    """The job that left the graft."""
    scale: Scale

    @property
    def arm(self) -> Arm:
        """What is tuned."""
        return self.scale.arms[self.cell.arm]

    def __call__(self, folder: Path) -> dict[str, Any]:
        """The record of the run or, where nothing is tuned, the pulls at each part; and what the test examples came to.

        Raises: as training.train.
        """
        quiet()
        model, tokenizers = self._beginning(folder)
        task = load_task(self.data / self.cell.task / TASK)
        record, room = self.heading, room_of(model)
        found = task_examples(task, "validation", tokenizers, room, 0, self.scale.validation)
        held = [made(item) for item in found]
        if self.arm.settings is not None:
            run = train(
                model,
                tokenizers,
                {task.name: task_examples(task, "train", tokenizers, room, 0)},
                TuneSettings(**self.settings),
                validation={task.name: held},
                folder=folder,
                name=self.name,
                keep=False,
            )
            record |= {"run": run}
        tested = evaluate(
            model,
            tokenizers,
            task,
            "test",
            limit=self.scale.test,
            batch_size=32,
            model_name=self.start,
            encoder_name=self.cell.arm,
        )
        copied = [copy_share(task, record) for record in task.records("test")[: self.scale.test]]
        if self.arm.settings is None:
            record |= {"pulls": pulls(model, held)}
        return record | {"evaluation": tested, "copied": copied}

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of TuneSettings."""
        assert self.arm.settings is not None
        own = {"learning_rate": self.rate, "seed": self.seed}
        return {**self.scale.tuning.settings, **self.arm.settings, **own}

    def _beginning(self, folder: Path) -> tuple[GraftForConditionalGeneration, Tokenizers]:
        start = folder / self.start / MODEL
        if self.arm.bridge is None:
            model = load_graft(start, dtype=torch.float32)
        else:
            model = adapt(start, bridge=BridgeConfig.from_dict(self.arm.bridge), dtype=torch.float32)
        if self.arm.attention is not None:
            model.set_encoder_attention(self.arm.attention)
        return model, tokenizers_of(start, model.config)


def room_of(model: GraftForConditionalGeneration) -> tuple[int, int | None]:
    """Positions of a model, as task_examples takes them."""
    return model.config.max_position_embeddings, model.config.source_positions


def copy_share(task: Task, record: Record) -> float:
    """Share of a target's words that stand in its source, whatever their case; the first reference counts."""
    target = task.target(record).lower().split()
    source = set(task.source(record).lower().replace("|", " ").replace("_", " ").split())
    return sum(word.strip('.,!?"') in source or word in source for word in target) / max(1, len(target))
