"""The teacher of a run: opened as the settings say, checked against the tasks, and present in every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from graftlm.data.collate import Example
from graftlm.data.deferred import Deferred, DeferredExamples, Item
from graftlm.data.mixture import Mixture
from graftlm.data.tokenizers import Tokenizers, tokenizer_hash
from graftlm.errors import CheckpointError, ConfigError
from graftlm.families.donor import Donor, load_donor
from graftlm.families.weight_hash import donor_hash
from graftlm.model.causal_lm import CausalLM
from graftlm.model.linear_cross_entropy import LossTerms
from graftlm.objectives.frame import Frame
from graftlm.objectives.pair_examples import PairExamples
from graftlm.objectives.teacher_targets import TeacherTargets
from graftlm.objectives.text_examples import TextExamples
from graftlm.training.distillation import Distillation
from graftlm.training.settings import TuneSettings
from graftlm.training.teacher import TeacherModel, open_teacher
from graftlm.training.teacher_store import TeacherStore, documents_hash, stores_in

Taught = TextExamples | PairExamples
"""Examples that are made of documents."""


class Lessons(DeferredExamples):
    """The examples of a task with what a teacher says of them, or is to be asked; anew each round, as they are."""

    def __init__(self, examples: Taught, distillation: Distillation) -> None:
        self.examples, self.distillation = examples, distillation

    def renewed(self, round: int) -> Lessons:
        """The lessons of a round, from 0 on."""
        return Lessons(self.examples.renewed(round), self.distillation)

    def __len__(self) -> int:
        return len(self.examples)

    def item(self, number: int) -> Deferred:
        """The lesson of an example, not made yet."""
        return self.examples[number]._replace(make=self.lesson)

    def lesson(self, number: int) -> Example:
        """The lesson of an example."""
        document, first = self.examples.place(number)
        return self.distillation.lesson(self.examples.split(number), document, self.examples.documents[document], first)


@dataclass(frozen=True)
class Teaching:
    """A teacher and the lessons of each task; `open_teaching` makes it."""

    lessons: Mapping[str, Lessons]
    record: dict[str, Any]
    """What the teacher is and how it teaches, as plain JSON: for a run's record, and what a resumed run must share."""

    @property
    def _any(self) -> Distillation:
        return next(iter(self.lessons.values())).distillation

    def mixture(self, of: Mixture[Item]) -> Mixture[Item]:
        """A mixture of the same examples as lessons."""
        assert self.lessons.keys() == of.examples.keys(), "the teacher was opened for another mixture"
        return Mixture(self.lessons, of.rates)

    def inputs(self, batch: Mapping[str, Any], terms: LossTerms, seed: str) -> dict[str, Any]:
        """A batch of lessons as the student's inputs; see Distillation."""
        return self._any.inputs(batch, terms, seed)

    def to(self, device: torch.device) -> None:
        """Move a teacher that is asked."""
        if isinstance(self._any.teacher, TeacherModel):
            self._any.teacher.model.to(device)  # type: ignore[arg-type]

    def __str__(self) -> str:
        record = self.record
        kept = "whole distributions" if record["keep"] == "all" else f"{record['keep']} {record['k']}"
        how = "stored targets" if record["stored"] else "asked for each batch"
        shares = f"weight {record['weight']:g}, temperature {record['temperature']:g}"
        return f"teacher: {record['source']} ({how}), {shares}, {kept}"


def open_teaching(
    settings: TuneSettings, mixture: Mixture[Item], tokenizers: Tokenizers, vocabulary: int
) -> Teaching | None:
    """The teacher that the settings name, for the examples of a mixture; `vocabulary` is the student's.

    Raises: ConfigError for a teacher with another tokenizer, or that cannot read the examples; CheckpointError for
    stored targets that are of other documents, settings or tokenizers; and as `open_teacher`.
    """
    if settings.teacher is None:
        return None
    tasks = {name: taught(examples, tokenizers, name) for name, examples in mixture.examples.items()}
    folder = Path(settings.teacher).expanduser()
    stores = stores_in(folder)
    teachers: Mapping[str, TeacherModel | TeacherStore]
    if stores:
        found = {name: _store(folder, stores, task, settings, tokenizers) for name, task in tasks.items()}
        teachers, hashes = found, sorted({store.manifest["teacher"] for store in found.values()})
    else:
        donor = open_teacher(settings.teacher, tokenizers)
        targets, model = TeacherTargets(**settings.targets), load_teacher(donor)
        teachers = {name: teacher_of(donor, model, targets, task) for name, task in tasks.items()}
        hashes = [donor_hash(donor)]
    first, *others = (teacher.targets for teacher in teachers.values())
    if any(replace(other, length=first.length) != first for other in others):
        raise ConfigError(f"The targets in {folder} were made with several settings; write them with the same ones.")
    weight = settings.teacher_weight
    assert weight is not None
    made = {name: Distillation(teacher=t, vocabulary=vocabulary, weight=weight) for name, t in teachers.items()}
    record = {"source": settings.teacher, "stored": bool(stores), "sha256": hashes, "weight": weight}
    lengths = {name: teacher.targets.length for name, teacher in teachers.items()}
    return Teaching(
        {name: Lessons(task, made[name]) for name, task in tasks.items()}, record | asdict(first) | {"length": lengths}
    )


def taught(examples: Sequence[Item], tokenizers: Tokenizers, task: str) -> Taught:
    """Examples of a task as a teacher takes them. Raises: as Frame.of."""
    if isinstance(examples, TextExamples):
        return examples
    pairs = [pair for pair in examples if isinstance(pair, Example)]
    assert len(pairs) == len(examples), "a teacher needs the documents that examples are made of"
    return PairExamples(pairs, Frame.of(tokenizers, 1, 1), task)


def load_teacher(donor: Donor) -> CausalLM:
    """A teacher's model: in fp32 on a CPU, and on a GPU in the dtype that it is stored in."""
    on_gpu = torch.cuda.is_available()
    model: CausalLM = load_donor(donor, None if on_gpu else torch.float32)
    return model


def documents_of(examples: Taught) -> list[npt.NDArray[np.int32]]:
    """What a teacher reads."""
    return [examples.documents[number] for number in range(len(examples.documents))]


def teacher_of(donor: Donor, model: CausalLM, targets: TeacherTargets, examples: Taught) -> TeacherModel:
    """A teacher of these examples, which reads what each of them is made of at once.

    Raises: ConfigError for examples that are too long for it, or have tokens that it does not know.
    """
    stack = donor.encoder_stack
    most = stack.max_position_embeddings - len(examples.start)
    if examples.length > most:
        raise ConfigError(
            f"An example of task {examples.task} takes up to {examples.length:,} tokens and the teacher reads at most "
            f"{most:,}; lower the lengths of the task, or choose another teacher."
        )
    largest = max(int(ids.max()) for ids in documents_of(examples))
    if largest >= stack.vocab_size:
        raise ConfigError(
            f"The teacher in {donor.folder} knows {stack.vocab_size:,} tokens and task {examples.task} has token "
            f"{largest:,}; choose a teacher with the student's vocabulary."
        )
    return TeacherModel(model, replace(targets, length=examples.length), examples.start)


def _store(
    folder: Path, stores: Sequence[TeacherStore], task: Taught, settings: TuneSettings, tokenizers: Tokenizers
) -> TeacherStore:
    """The one of some stores that is of a task's documents. Raises: CheckpointError where it is not of this run."""
    data = documents_hash(documents_of(task))
    found = [store for store in stores if store.manifest["data"] == data] or [*stores][: len(stores) == 1]
    if not found:
        raise CheckpointError(
            f"{folder} holds no targets of the documents of task {task.task}; write them with graftlm distill."
        )
    own = {"tokenizer": tokenizer_hash(tokenizers.target), "data": data}
    found[0].check(**own, start=list(task.start), length=task.length, **settings.targets)
    return found[0]
