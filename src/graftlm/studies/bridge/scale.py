"""How large the bridge study is: data, model, and what every arm gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftlm.data.rows import DatasetSource
from graftlm.data.task import SPLITS
from graftlm.studies.bridge.arms import BASE, PAPER_ARMS, Arm
from graftlm.studies.search import Budget


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size of the study."""

    sets: tuple[str, ...] = ()
    """Folders of the data folder with train, validation and test pairs."""
    pairs: Mapping[str, DatasetSource] | None = None
    """Train, validation and test pairs of the hub, in the place of such folders."""
    shape: Mapping[str, Any]
    """Fields of transformers' MarianConfig."""
    vocabulary: int
    model: str | None = None
    """Hub name of the trained model that fine-tuned arms start from; None trains one, the base."""
    base: Budget | None = None
    scratch: Budget
    tuned: Budget
    seeds: tuple[int, ...] = (0, 1, 2)
    validation: int
    """First so many validation rows of each set."""
    test: int | None = None
    """First so many test rows of each set."""
    max_tokens: int
    """Longer sources and targets are cut in training, and longer sources in tests."""
    max_new_tokens: int
    num_beams: int = 4
    arms: Mapping[str, Arm] | None = None
    """Only these; None is all of the study."""

    def budget(self, name: str, arm: Arm) -> Budget:
        """What an arm gets, as every arm of its kind."""
        found = self.base if name == BASE else self.scratch if arm.scratch else self.tuned
        assert found is not None
        return found

    def rates(self, name: str, arm: Arm) -> tuple[float, ...]:
        """Learning rates that are searched for an arm."""
        return arm.rates or self.budget(name, arm).rates


def _updates(steps: int, **others: Any) -> dict[str, Any]:
    return {"steps": steps, "warmup_steps": steps // 10, "batch_size": 32, "weight_decay": 0.01} | others


MINI = Scale(
    sets=("multi30k_de_en", "tatoeba_de_en"),
    shape={
        "d_model": 128,
        "encoder_layers": 4,
        "decoder_layers": 4,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 512,
        "decoder_ffn_dim": 512,
        "dropout": 0.1,
        "max_position_embeddings": 256,
    },
    vocabulary=6_000,
    base=Budget(settings=_updates(6_000, warmup_steps=400, eval_every=500), rates=(1e-3,)),
    scratch=Budget(settings=_updates(3_000, eval_every=200), rates=(1e-3, 2e-3)),
    tuned=Budget(settings=_updates(600, eval_every=100), rates=(2e-4, 6e-4, 2e-3)),
    validation=400,
    max_tokens=48,
    max_new_tokens=48,
)
"""Ends in hours on two cores."""

_PUBLISHED = {"steps": 62_500, "batch_size": 16, "weight_decay": 0.01, "warmup_steps": 0, "schedule": "linear"}
PAPER = Scale(
    pairs={
        split: DatasetSource(
            dataset="wmt16",
            config="de-en",
            split="train[:1000000]" if split == "train" else split,
            fields={"source": "translation.de", "target": "translation.en"},
        )
        for split in SPLITS
    },
    shape={
        "d_model": 512,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
        "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048,
        "dropout": 0.1,
        "max_position_embeddings": 512,
    },
    vocabulary=58_101,
    model="Helsinki-NLP/opus-mt-de-en",
    scratch=Budget(settings=_PUBLISHED | {"eval_every": 2_500}, rates=(2e-5,)),
    tuned=Budget(settings=_PUBLISHED | {"eval_every": 2_500}, rates=(1e-5, 2e-5, 4e-5)),
    validation=2_169,
    max_tokens=128,
    max_new_tokens=512,
    arms=PAPER_ARMS,
)
"""The paper's own settings: one epoch of a million pairs. Source: arXiv 2405.08570 and the author's code."""

SCALES = {"mini": MINI, "paper": PAPER}
