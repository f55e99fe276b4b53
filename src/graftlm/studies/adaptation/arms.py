"""The arms of the adaptation study, as data: each differs in one thing from the arm that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graftlm.training.phase import Phase

RECIPE, OBJECTIVE, ATTENTION, CROSS, FIRST = (
    "Recipe",
    "Objective",
    "Encoder attention",
    "Cross-attention",
    "Cross-attention first, in an unbalanced pair",
)
PREFIX_LM = {"name": "prefix_lm"}
T5GEMMA = {"recipe": "t5gemma"}
LOSSLESS = {"recipe": "lossless"}
BASE = "t5gemma"
"""The arm that most others are compared with, whose final loss is a threshold for all."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to make an encoder–decoder of a language model, and to train it on texts."""

    title: str
    question: str
    """What the arm helps to answer."""
    adapt: Mapping[str, Any] = field(default_factory=lambda: T5GEMMA)
    """Options of adaptation.adapt.adapt."""
    encoder_attention: str | None = None
    """Instead of the recipe's own."""
    scratch: bool = False
    """All weights begin at random, instead of from the language model."""
    objective: Mapping[str, Any] = field(default_factory=lambda: PREFIX_LM)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TuneSettings that differ from those of the scale."""
    reference: str = BASE
    """The arm that this one is compared with; itself where that is none."""


UL2 = {"name": "ul2", "denoisers": "t5gemma2"}
BALANCED: dict[str, Arm] = {
    BASE: Arm(title="recipe t5gemma, PrefixLM", question=RECIPE),
    "t5gemma2": Arm(title="recipe t5gemma2", question=RECIPE, adapt={"recipe": "t5gemma2"}),
    "lossless": Arm(title="recipe lossless", question=RECIPE, adapt=LOSSLESS),
    "scratch": Arm(title="random weights", question=RECIPE, scratch=True),
    "ul2": Arm(title="UL2", question=OBJECTIVE, objective=UL2),
    "t5gemma-causal": Arm(title="t5gemma, causal encoder", question=ATTENTION, encoder_attention="causal"),
    "lossless-bidirectional": Arm(
        title="lossless, bidirectional encoder",
        question=ATTENTION,
        adapt=LOSSLESS,
        encoder_attention="bidirectional",
        reference="lossless",
    ),
    **{
        f"cross-{init}": Arm(
            title=f"cross-attention begins as {init}", question=CROSS, adapt=T5GEMMA | {"cross_attention": init}
        )
        for init in ("random", "zero_out")
    },
}


def all_arms(
    teacher: Mapping[str, Any], unbalanced: Mapping[str, Any], first: Mapping[str, Mapping[str, Any]]
) -> dict[str, Arm]:
    """The arms of the study by their names.

    `teacher` are the fields of TuneSettings that name one, `unbalanced` the options of adapt for a pair of two models
    or depths, and `first` fields of Phase for how long cross-attention trains alone, by a name for each.
    """
    distilled = Arm(title="PrefixLM with the language model as teacher", question=OBJECTIVE, settings=teacher)
    pair = Arm(
        title="shallower or smaller decoder",
        question=FIRST,
        adapt=T5GEMMA | {"cross_attention": "random"} | dict(unbalanced),
        reference="unbalanced",
    )
    phased = {
        f"unbalanced-first-{name}": replace(
            pair,
            title="the same, cross-attention first",
            settings={"phases": (Phase(freeze="*,!cross_attention", **length), Phase(freeze="none"))},
        )
        for name, length in first.items()
    }
    return BALANCED | {"distilled": distilled, "unbalanced": pair} | phased


def shown(arms: Mapping[str, Arm]) -> dict[str, list[str]]:
    """The arms that answer each question, after those that they are compared with."""
    found: dict[str, dict[str, None]] = {}
    for name, arm in arms.items():
        found.setdefault(arm.question, {}).update(dict.fromkeys((arm.reference, name)))
    return {question: list(names) for question, names in found.items()}
