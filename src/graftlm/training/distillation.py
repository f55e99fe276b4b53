"""Distillation while training: examples become lessons, and batches of lessons what the student's `forward` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from graftlm.data.collate import Example
from graftlm.errors import ConfigError
from graftlm.model.linear_cross_entropy import LossTerms, Teacher
from graftlm.objectives.distillation import Ids, aligned, reading
from graftlm.objectives.objective import NOWHERE, Split
from graftlm.objectives.teacher_targets import Targets
from graftlm.training.lessons import ASKED, STORED, Asked
from graftlm.training.teacher import TeacherModel, generator_of
from graftlm.training.teacher_store import TeacherStore


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """A teacher, asked for each batch or with stored targets, and its share in the loss.

    Raises: ConfigError for a weight that is no share.
    """

    teacher: TeacherModel | TeacherStore
    vocabulary: int
    """The student's; what the teacher says of ids beyond it is left out."""
    weight: float = 0.5
    """Share of the teacher in the loss, α; the labels have the rest."""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ConfigError(f"weight is {self.weight}; it must be above 0 and at most 1.")

    def lesson(self, split: Split, number: int, document: Ids, first: int = 0) -> Example:
        """The lesson of an example made of a document; its number is the one in the data that targets are stored of.

        `first` is the position in the document that the split counts its own from, where it was made of a piece.
        """
        teacher = self.teacher
        split = split._replace(positions=[p if p == NOWHERE else first + p for p in split.positions])
        if isinstance(teacher, TeacherStore):
            return Example(split.source, split.target, aligned(split, teacher[number], self.vocabulary))
        return Example(split.source, split.target, reading(split.positions, document, teacher.start, teacher.length))

    def inputs(
        self, batch: Mapping[str, Any], terms: LossTerms | None = None, seed: str | None = None
    ) -> dict[str, Any]:
        """A batch of LessonCollator with `loss_terms`, those given and the teacher's, in the place of its own fields.

        A temperature divides the student's logits as it did the teacher's. What a teacher that is asked draws is a
        function of `seed`, or comes from its device's own generator.
        """
        fields = dict(batch)
        if isinstance(self.teacher, TeacherStore):
            targets = Targets(*(fields.pop(name) for name in STORED))
        else:
            given = Asked(*(fields.pop(name) for name in ASKED))
            generator = None if seed is None else generator_of(seed, self.teacher.model.device)
            targets = self.teacher.teach(given, fields["labels"], self.vocabulary, generator)
        teacher = Teacher(
            ids=targets.ids,
            probabilities=targets.probabilities,
            weight=self.weight,
            temperature=self.teacher.targets.temperature,
        )
        return fields | {"loss_terms": replace(terms or LossTerms(), teacher=teacher)}
