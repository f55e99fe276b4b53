"""Objectives by the names and settings that recipes write, and what they take of a graft's tokenizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from graftlm.data.tokenizers import Tokenizers
from graftlm.errors import ConfigError
from graftlm.model.stack_config import one_of, strict
from graftlm.objectives.frame import Frame
from graftlm.objectives.objective import Objective, Split
from graftlm.objectives.prefix_lm import PrefixLM
from graftlm.objectives.sentinels import sentinels
from graftlm.objectives.seq2seq import Seq2Seq
from graftlm.objectives.span_corruption import SpanCorruption
from graftlm.objectives.ul2 import MIXTURES, UL2, Denoiser

OBJECTIVES: dict[str, type[PrefixLM | UL2 | SpanCorruption | Seq2Seq]] = {
    "prefix_lm": PrefixLM,
    "ul2": UL2,
    "span_corruption": SpanCorruption,
    "seq2seq": Seq2Seq,
}


def objective_of(values: Mapping[str, Any]) -> PrefixLM | UL2 | SpanCorruption | Seq2Seq:
    """An objective by its `name` and settings; the `denoisers` of ul2 are a list, or the name of a published mixture.

    Raises: ConfigError for an unknown name, a setting that is none, with the closest one, and a value that cannot be.

    >>> objective_of({"name": "prefix_lm", "split": "ratio", "ratio": 0.25})
    PrefixLM(split='ratio', ratio=0.25)
    >>> objective_of({"name": "ul2", "denoisers": "t5gemma2"}) == MIXTURES["t5gemma2"]
    True
    """
    settings = dict(values)
    name = settings.pop("name", None)
    one_of("objective name", name, tuple(OBJECTIVES))
    if "denoisers" in settings:
        settings["denoisers"] = _denoisers(settings["denoisers"])
    return strict(OBJECTIVES[name], settings)


def document_objective(values: Mapping[str, Any]) -> PrefixLM | UL2 | SpanCorruption:
    """An objective on documents by its `name` and settings. Raises: as objective_of; ConfigError for seq2seq."""
    objective = objective_of(values)
    if isinstance(objective, Seq2Seq):
        raise ConfigError("objective seq2seq is what pairs of source and target have; leave out `objective`.")
    return objective


def prepare(objective: Objective, tokenizers: Tokenizers, source_length: int, target_length: int) -> Frame:
    """The frame of an objective's examples, with all the sentinels and modes that documents of any length take.

    Raises: as Frame.of and `sentinels`; ConfigError for a graft of two tokenizers, and for lengths without room.
    """
    if tokenizers.two:
        raise ConfigError(
            "This graft reads and writes with two tokenizers, so no document can be split between them; "
            "train it on pairs, with the objective seq2seq."
        )
    frame = Frame.of(tokenizers, source_length, target_length, objective.modes)
    objective.length(frame)  # Raises where there is no room, for objectives without sentinels too.
    return replace(frame, sentinels=sentinels(tokenizers.source, objective.sentinels(frame)))


def make_example(objective: Objective, ids: Sequence[int], frame: Frame, seed: int, number: int) -> Split:
    """Example `number` of a run: a function of its arguments alone, so workers and resumed runs make the same.

    Raises: as Objective.make.
    """
    return objective.make(ids, frame, Random(f"{seed}/{number}"))


def _denoisers(given: Any) -> tuple[Denoiser, ...]:
    if isinstance(given, str):
        one_of("denoisers", given, tuple(MIXTURES))
        return MIXTURES[given].denoisers
    if not isinstance(given, list) or not all(isinstance(values, Mapping) for values in given):
        raise ConfigError(f"denoisers is {given!r}; give a list of them, or one of {', '.join(MIXTURES)}.")
    return tuple(_denoiser(values) for values in given)


def _denoiser(values: Mapping[str, Any]) -> Denoiser:
    settings = dict(values)
    if isinstance(settings.get("objective"), Mapping):
        settings["objective"] = objective_of(settings["objective"])
    return strict(Denoiser, settings)
