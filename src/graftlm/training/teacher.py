"""A language model as a teacher: what it says of documents, while the student trains or before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graftlm.data.tokenizers import Tokenizers, same_tokenizer, tokenizer_of
from graftlm.errors import ConfigError, ConversionError
from graftlm.families.donor import Donor, open_donor
from graftlm.families.locate import locate
from graftlm.model.causal_lm import CausalLM
from graftlm.model.decoder import Placement
from graftlm.model.position import positions_from_mask
from graftlm.objectives.distillation import Ids, TeacherRows, reading
from graftlm.objectives.objective import NOWHERE
from graftlm.objectives.teacher_targets import Targets, TeacherTargets
from graftlm.training.lessons import Asked, asked

LOGITS = 2**26
"""Logits that are made at a time."""


def open_teacher(source: str | Path, tokenizers: Tokenizers) -> Donor:
    """A decoder-only language model that can teach a graft of these tokenizers; `load_donor` puts it in memory.

    Raises: ConversionError for another kind of model, ConfigError for another tokenizer, and as `open_donor`.
    """
    folder = locate(source)
    donor = open_donor(folder)
    if not donor.is_causal_lm:
        raise ConversionError(
            f"{source} is a {donor.family.name} model and cannot teach; give a decoder-only language model."
        )
    if tokenizers.two or not same_tokenizer(tokenizer_of(folder), tokenizers.target):
        raise ConfigError(
            f"The tokenizer of the teacher {source} is not the student's, so that its probabilities are of other "
            "tokens; choose a teacher with the same tokenizer."
        )
    return donor


def generator_of(seed: str, device: torch.device) -> torch.Generator:
    """A generator whose draws are a function of any text."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little", signed=True)
    return torch.Generator(device).manual_seed(number)


class TeacherModel:
    """A frozen language model and what is kept of its distributions. It never trains, and belongs to no model's parts.

    `start` are the ids that it reads before a document, such as BOS: those of the objective's frame.
    Raises: ConfigError for targets that it cannot give.
    """

    def __init__(self, model: CausalLM, targets: TeacherTargets, start: Sequence[int] = ()) -> None:
        self.model = model.eval().requires_grad_(False)
        self.targets = targets
        self.start = tuple(start)
        assert model.config.decoder is not None
        self.vocabulary: int = model.config.decoder.vocab_size
        self.length = targets.reads(model.config.decoder.max_position_embeddings - len(self.start))
        targets.check(self.vocabulary)

    @torch.no_grad()
    def predict(self, given: Asked, vocabulary: int, generator: torch.Generator | None = None) -> Targets:
        """Targets for the N entries of `given.outputs` that are somewhere, of ids below `vocabulary`; (N, K)."""
        ids, mask, outputs = (tensor.to(self.model.device) for tensor in given)
        places = outputs[outputs != NOWHERE]
        states = self.model.decoder(ids, Placement(positions=positions_from_mask(mask), valid=mask))[-1]
        made = [
            self.targets.of(self.model.logits(chunk)[:, :vocabulary], generator)
            for chunk in states.flatten(0, 1)[places].split(max(1, LOGITS // self.vocabulary))
        ]
        return Targets(*(torch.cat(parts) for parts in zip(*made, strict=True)))

    def teach(self, given: Asked, labels: Tensor, vocabulary: int, generator: torch.Generator | None = None) -> Targets:
        """Targets for labels (B, T), one-hot where the teacher has nothing to say; (B, T, K)."""
        known = given.outputs != NOWHERE
        found = self.predict(given, vocabulary, generator)
        ids = labels.new_zeros(*labels.shape, found.ids.shape[-1])
        probabilities = torch.zeros_like(ids, dtype=torch.float32)
        ids[..., 0], probabilities[..., 0] = labels.clamp(min=0), 1
        ids[known], probabilities[known] = (part.to(labels.device) for part in found)
        return Targets(ids, probabilities)

    def rows(self, parts: Sequence[Ids], generator: torch.Generator | None = None) -> list[TeacherRows]:
        """What it says of every token of some documents, or parts of them, none longer than `length`."""
        given = asked([reading(range(len(part)), part, self.start, self.length) for part in parts])
        found = self.predict(given, self.vocabulary, generator)
        shares = found.probabilities.half()
        kept = shares > 0
        counts = torch.zeros_like(given.outputs)
        counts[given.outputs != NOWHERE] = kept.sum(-1).to(counts.device)
        ids, probabilities = found.ids[kept].cpu().numpy().astype(np.uint32), shares[kept].cpu().numpy()
        made, begin = [], 0
        for row in counts.split([len(part) for part in parts]):
            starts = np.cumsum([0, *row.tolist()], dtype=np.int64)
            end = begin + int(starts[-1])
            made.append(TeacherRows(ids[begin:end], probabilities[begin:end], starts))
            begin = end
        return made
