"""The jobs of the adaptation study: train one arm, and measure what it came to on texts that no choice was made by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from graftlm.adaptation.adapt import adapt, generation_config, in_memory, plan_graft
from graftlm.adaptation.plan import fresh_plan
from graftlm.data.collate import Example
from graftlm.data.deferred import made
from graftlm.data.text_task import TextTask
from graftlm.data.tokenizers import Tokenizers, tokenizers_of
from graftlm.evaluation.loss import loss_and_source_gain
from graftlm.families.locate import locate
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.objectives.text_examples import text_examples
from graftlm.studies.adaptation.arms import PREFIX_LM, Arm
from graftlm.studies.adaptation.scale import Scale
from graftlm.studies.data import local_files
from graftlm.studies.training import AfterTraining, ArmTraining, quiet, train
from graftlm.training.settings import TuneSettings
from graftlm.training.validation import source_gains, validation_losses

SPLITS = ("train", "validation")


@dataclass(frozen=True, kw_only=True)
class Train(ArmTraining):
    """Adapt the language model as an arm says and train it, with one seed and one learning rate."""

    arm: Arm
    scale: Scale

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Losses and source gains before training, and the record of the run; the model stays in `folder`.

        Validation is by PrefixLM, whatever is trained on. Raises: as training.train.
        """
        quiet()
        model = beginning(self.arm, self.scale.model, self.seed)
        tokenizers = tokenizers_of(locate(self.scale.model), model.config)
        tasks = text_tasks(self.data, self.scale, self.arm)
        examples = {
            task.name: text_examples(task, tokenizers, "train", self.seed, self.scale.documents) for task in tasks
        }
        validation = held_out(self.data, self.scale, tokenizers, slice(self.scale.validation))
        settings = TuneSettings(**self.settings)
        losses = validation_losses(model, validation, settings.batch_size or 1)
        start = {"losses": losses, "source_gains": source_gains(model, validation, losses, settings.batch_size or 1)}
        run = train(model, tokenizers, examples, settings, validation=validation, folder=folder, name=self.name)
        return self.heading | {"start": start, "run": run}

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of TuneSettings."""
        return self.settings_of(self.scale.budget.settings, self.arm.settings)


@dataclass(frozen=True, kw_only=True)
class Measure(AfterTraining):
    """Loss and source gain, by PrefixLM, of what a training job left."""

    trained: Train

    def __call__(self, folder: Path) -> dict[str, Any]:
        """The statistics of every test example, all sets one after the other."""
        quiet()
        job, scale = self.trained, self.trained.scale
        model, tokenizers = self.opened(folder)
        last = None if scale.test is None else scale.validation + scale.test
        tests = held_out(job.data, scale, tokenizers, slice(scale.validation, last))
        metrics = loss_and_source_gain(model, [example for rows in tests.values() for example in rows])
        return job.heading | {"statistics": {name: metric.statistics for name, metric in metrics.items()}}


def beginning(arm: Arm, source: str, seed: int) -> GraftForConditionalGeneration:
    """The untrained encoder–decoder of an arm, in fp32."""
    if arm.scratch:
        plan = plan_graft(source, **cast(Any, arm.adapt))
        model = in_memory(fresh_plan(plan.config, seed), generation_config(plan))
    else:
        model = adapt(source, dtype=torch.float32, seed=seed, **cast(Any, arm.adapt))
    if arm.encoder_attention is not None:
        model.set_encoder_attention(arm.encoder_attention)
    return model


def text_tasks(data: Path, scale: Scale, arm: Arm | None = None) -> list[TextTask]:
    """The texts of a scale with the objective of an arm, or PrefixLM. Raises: TaskError for a file that is missing."""
    sources = local_files(data, scale.sets, SPLITS) if scale.texts is None else scale.texts
    return [
        TextTask(
            name=name,
            train=splits["train"],
            validation=splits["validation"],
            objective=dict(PREFIX_LM if arm is None else arm.objective),
            source_length=scale.source_length,
            target_length=scale.target_length,
        )
        for name, splits in sources.items()
    ]


def held_out(data: Path, scale: Scale, tokenizers: Tokenizers, part: slice) -> dict[str, list[Example]]:
    """A part of each set's validation examples, by PrefixLM."""
    found = {task.name: text_examples(task, tokenizers, "validation", 0) for task in text_tasks(data, scale)}
    return {name: [made(item) for item in examples[part]] for name, examples in found.items()}
