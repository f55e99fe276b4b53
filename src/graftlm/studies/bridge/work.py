"""The jobs of the bridge study: train one arm, translate the test sets with it."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graftlm.adaptation.adapt import adapt
from graftlm.adaptation.store import load_graft
from graftlm.data.collate import Example, encode
from graftlm.data.task import Task
from graftlm.data.tokenizers import Tokenizers, tokenizer_of, tokenizers_of
from graftlm.evaluation.evaluator import evaluate
from graftlm.families.locate import locate
from graftlm.model.bridge_config import BridgeConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.studies.bridge.arms import BASE, Arm
from graftlm.studies.bridge.corpus import task_named, translation_tasks, untrained
from graftlm.studies.bridge.scale import Scale
from graftlm.studies.training import MODEL, AfterTraining, ArmTraining, quiet, train
from graftlm.training.settings import TuneSettings

TOKENIZER = "tokenizer"


@dataclass(frozen=True, kw_only=True)
class Train(ArmTraining):
    """Train an arm with one seed and one learning rate."""

    arm: Arm
    scale: Scale

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Train from the base in `folder`, or from scratch; the model and the record of the run stay.

        Raises: KeyboardInterrupt when it was stopped before the end; the next call goes on from there.
        """
        quiet()
        model, tokenizers = self._beginning(folder)
        tasks = tasks_of(self.arm, self.scale, self.data)
        examples = {task.name: self._examples(task, "train", tokenizers) for task in tasks}
        validation = {task.name: self._examples(task, "validation", tokenizers) for task in tasks}
        settings = TuneSettings(**self.settings)
        run = train(model, tokenizers, examples, settings, validation=validation, folder=folder, name=self.name)
        return self.heading | {"run": run}

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of TuneSettings."""
        return self.settings_of(self.scale.budget(self.arm_name, self.arm).settings, self.arm.settings)

    def _beginning(self, folder: Path) -> tuple[GraftForConditionalGeneration, Tokenizers]:
        if self.arm.scratch:
            with tempfile.TemporaryDirectory() as scratch:
                start = Path(scratch) / MODEL
                std = {} if self.arm.init_std is None else {"init_std": self.arm.init_std}
                untrained(start, tokenizer_of(folder / TOKENIZER), {**self.scale.shape, **std}, self.seed)
                return self._bridged(start)
        if self.scale.model is not None:
            return self._bridged(locate(self.scale.model))
        [base] = folder.glob(f"{BASE}-*/{MODEL}")
        return self._bridged(base)

    def _bridged(self, start: Path) -> tuple[GraftForConditionalGeneration, Tokenizers]:
        if self.arm.bridge is None:
            model = load_graft(start, dtype=torch.float32)
        else:
            bridge = BridgeConfig.from_dict(self.arm.bridge)
            model = adapt(start, bridge=bridge, bridge_init=self.arm.init, dtype=torch.float32, seed=self.seed)
        return model, tokenizers_of(start, model.config)

    def _examples(self, task: Task, split: str, tokenizers: Tokenizers) -> list[Example]:
        records = task.records(split)
        longest = self.scale.max_tokens
        if split == "train":
            first, last = (round(share * len(records)) for share in self.arm.rows)
            records = random.Random(0).sample(records, len(records))[first:last]
        else:
            records = records[: self.scale.validation]
        encoded = [encode(record, task, tokenizers, longest) for record in records]
        return [Example(example.input_ids, example.labels[:longest]) for example in encoded]


@dataclass(frozen=True, kw_only=True)
class Translate(AfterTraining):
    """Translate the test sets with what a training job left."""

    trained: Train

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Metrics of every task, with the statistics of every sentence."""
        quiet()
        job = self.trained
        model, tokenizers = self.opened(folder)
        tasks = tasks_of(job.arm, job.scale, job.data)
        words = [
            [len(task.source(record).split()) for record in task.records("test")[: job.scale.test]] for task in tasks
        ]
        evaluations = [
            evaluate(model, tokenizers, task, "test", limit=job.scale.test, batch_size=64, model_name=job.arm_name)
            for task in tasks
        ]
        return job.heading | {"evaluations": evaluations, "source_words": words}


def tasks_of(arm: Arm, scale: Scale, data: Path) -> list[Task]:
    """What an arm learns."""
    return translation_tasks(data, scale) if arm.task is None else [task_named(arm.task, scale)]
