"""How large the adaptation study is: language model, texts, and what every arm gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graftlm.data.rows import DatasetSource
from graftlm.studies.adaptation.arms import Arm, all_arms
from graftlm.studies.search import Budget


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size of the study."""

    model: str
    """The language model that is adapted: a folder, a hub name or embedded-lm."""
    arms: Mapping[str, Arm]
    sets: tuple[str, ...] = ()
    """Folders of the data folder with train and validation texts."""
    texts: Mapping[str, Mapping[str, DatasetSource]] | None = None
    """The same of the hub, by a name and then by split, in the place of such folders."""
    told: str
    """What texts these are; a sentence."""
    documents: int | None = None
    """First so many training documents of each set."""
    source_length: int
    target_length: int
    budget: Budget
    seeds: tuple[int, ...] = (0, 1, 2)
    validation: int
    """First so many examples of each set's validation split, for the curves and the choice of learning rates."""
    test: int | None = None
    """So many of the examples after those, for the final numbers."""
    early: float
    """A validation loss: updates until it is reached are counted, as those until the base arm's final one."""
    seconds: float | None = None
    """Of one core for an update, with its share of validations and tests, as measured."""


MINI = Scale(
    model="embedded-lm",
    arms=all_arms(
        teacher={"teacher": "embedded-lm", "teacher_weight": 1.0, "teacher_keep": "all"},
        unbalanced={"decoder_layers": "0,2,5"},
        first={f"{share:g}": {"share": share} for share in (0.001, 0.01, 0.1)},
    ),
    sets=("lm_wiki_en", "lm_novels_en"),
    told=(
        "The training texts are from the stream that the language model was pretrained on, of which it has read two "
        "thirds, once; validation and test are of documents that it never saw."
    ),
    documents=1_000,
    source_length=512,
    target_length=512,
    budget=Budget(
        settings={"steps": 440, "warmup_steps": 44, "batch_size": 2, "weight_decay": 0.01, "eval_every": 55},
        rates=(1e-4, 5e-4, 2.5e-3),
    ),
    validation=12,
    test=48,
    early=6.0,
    seconds=1.1,
)
"""Ends in hours on two cores."""

_STEPS = 2_000_000_000_000 // (512 * 8192)
PAPER = Scale(
    model="google/gemma-2-2b",
    arms={
        name: arm
        for name, arm in all_arms(
            teacher={"teacher": "google/gemma-2-2b", "teacher_weight": 1.0, "teacher_k": 256},
            unbalanced={"encoder_from": "google/gemma-2-9b"},
            first={f"{steps}": {"steps": steps} for steps in (1_000, 5_000)},
        ).items()
        # Windows that have become bidirectional cannot be made causal again.
        if name != "t5gemma-causal"
    },
    texts={
        "web": {
            "train": DatasetSource(dataset="HuggingFaceFW/fineweb-edu", streaming=True),
            "validation": DatasetSource(
                dataset="allenai/c4", config="en", split="validation", streaming=True, limit=10_000
            ),
        }
    },
    told="The texts are FineWeb-Edu, and for validation C4, in place of Gemma 2's own, which are not public.",
    source_length=4096,
    target_length=4096,
    budget=Budget(
        settings={
            "steps": _STEPS,
            "warmup_steps": 100,
            "batch_size": 512,
            "weight_decay": 0.01,
            "eval_every": 10_000,
            "packing": True,
        },
        rates=(3e-5, 1e-4, 3e-4),
    ),
    seeds=(0,),
    validation=512,
    test=2_048,
    early=3.0,
)
"""Two trillion tokens in halves of 4,096. Source: arXiv 2504.06225, sections 3 and 4; batch, warm-up and distance of
validations, which it leaves open, are those of arXiv 2512.14856, section 3; learning rates are of neither."""

SCALES = {"mini": MINI, "paper": PAPER}
