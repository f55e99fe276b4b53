"""How large the steering study is: language model, starts, tasks, and what every arm gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftlm.studies.search import Budget
from graftlm.studies.steering.arms import ADAPTED, ARMS, ENCODER, EVERYTHING, RAW, STARTS, UNTUNED, Arm, Cell, Start
from graftlm.studies.steering.tasks import HELD_OUT, PREFIX_LM, SEEN, TEXT_SETS, UL2, Made, Pairs, Texts


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size of the study."""

    model: str
    """The language model: a folder, a hub name or embedded-lm."""
    starts: Mapping[str, Start]
    arms: Mapping[str, Arm]
    seen: Mapping[str, Pairs | Made | Texts]
    """What the starts are adapted on."""
    held_out: Mapping[str, Pairs]
    """What the arms are tuned and tested on."""
    cells: Sequence[Cell]
    """All that is tuned."""
    sets: tuple[str, ...]
    """Folders of the data folder that tasks are made of."""
    adaptation: Budget
    tuning: Budget
    seeds: tuple[int, ...] = (0, 1, 2)
    validation: int
    """First so many validation examples of each task."""
    test: int | None = None
    """First so many test examples of each task."""
    seconds: tuple[float, float] | None = None
    """Of one core for an update of adaptation and of tuning, with its share of validations and tests, as measured."""

    def updates(self, start: str) -> int:
        """Updates of adaptation of a start."""
        return round(self.starts[start].share * int(self.adaptation.settings["steps"]))


CORE = (UNTUNED, ENCODER, "encoder-lora-8", EVERYTHING)
"""Arms of the starts that are compared with each other."""
PLAIN = ("causal-full", "causal-lora")
TWO = ("e2e_nlg", "snips")
"""Tasks of those starts: natural-language targets, and a semantic parse."""
CROSS = "encoder-memory"
"""The arm that needs cross-attention of its own."""


def _cells() -> list[Cell]:
    arms = dict.fromkeys(STARTS, CORE) | {
        ADAPTED: tuple(name for name in ARMS if name != CROSS),
        RAW: CORE + PLAIN,
        "t5gemma": (*CORE, CROSS),
    }
    tasks = dict.fromkeys(STARTS, TWO) | {ADAPTED: tuple(HELD_OUT), RAW: tuple(HELD_OUT)}
    left_out = ("t5gemma-10", "t5gemma2-10")
    return [
        Cell(start=start, task=task, arm=arm)
        for start in (ADAPTED, *(name for name in STARTS if name != ADAPTED))
        if start not in left_out
        for task in tasks[start]
        for arm in arms[start]
    ]


MINI = Scale(
    model="embedded-lm",
    starts=STARTS,
    arms=ARMS,
    seen={"texts": PREFIX_LM, "spans": UL2, **SEEN},
    held_out=HELD_OUT,
    cells=_cells(),
    sets=(*TEXT_SETS, *(name for name, task in SEEN.items() if isinstance(task, Pairs)), *HELD_OUT),
    adaptation=Budget(
        settings={
            "steps": 1_000,
            "warmup_steps": 20,
            "batch_tokens": 4_096,
            "packing": True,
            "optimizer": "muon",
            "eval_every": 100,
        },
        rates=(1e-3, 3e-3),
    ),
    tuning=Budget(
        settings={"steps": 300, "warmup_steps": 20, "batch_size": 8, "eval_every": 50}, rates=(3e-4, 1e-3, 3e-3)
    ),
    validation=64,
    test=200,
)
"""Ends in hours on two cores."""

SCALES = {"mini": MINI}
