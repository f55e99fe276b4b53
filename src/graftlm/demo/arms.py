"""The arms of the demo: the ways to teach a model a task that are compared, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to teach a task; all arms have the same data, order of examples, batches and number of updates."""

    title: str
    trains: str
    """What is trained, in words."""
    recipe: str = "lossless"
    bidirectional: bool = True
    """The encoder sees both sides."""
    settings: Mapping[str, Any] | None = field(default_factory=dict)
    """Fields of TuneSettings that differ from the defaults; None does not train at all."""
    learning_rate: float = 3e-3
    """Chosen by hand, on one seed of e2e_nlg."""
    shuffled: bool = False
    """Every training target comes with the source of another one: a control that can learn only the targets."""
    whole: bool = False
    """A whole model is written, instead of what is added to the shared language model."""


ALL, LORA = {"freeze": "none"}, {"decoder_adapter": "lora", "adapter_rank": 8}
ARMS: dict[str, Arm] = {
    "un-tuned": Arm(
        title="un-tuned graft", trains="nothing, it is as recipe lossless makes it", bidirectional=False, settings=None
    ),
    "frozen": Arm(title="frozen decoder", trains="the encoder, bidirectional, on the frozen decoder"),
    "frozen-shuffled": Arm(
        title="shuffled sources", trains="control: the same, each target with another example's source", shuffled=True
    ),
    "frozen-adapter": Arm(
        title="frozen + adapter",
        trains="the same encoder, and a LoRA of rank 8 beside the frozen decoder",
        settings=LORA,
    ),
    "adapter": Arm(
        title="adapter alone",
        trains="only that LoRA; the encoder stays the language model's",
        bidirectional=False,
        settings=LORA | {"freeze": "decoder,encoder"},
        learning_rate=1e-2,
    ),
    "everything": Arm(
        title="everything trained", trains="encoder and decoder", settings=ALL, learning_rate=1e-3, whole=True
    ),
    "causal-full": Arm(
        title="plain LLM, full",
        trains="the language model, decoder-only",
        bidirectional=False,
        settings={"baseline": "causal-full"},
        learning_rate=1e-3,
        whole=True,
    ),
    "causal-lora": Arm(
        title="plain LLM, LoRA",
        trains="one LoRA on it, as large as the encoder",
        bidirectional=False,
        settings={"baseline": "causal-lora"},
        learning_rate=1e-3,
    ),
    "t5gemma": Arm(
        title="recipe t5gemma",
        trains="encoder, decoder and cross-attention of that recipe",
        recipe="t5gemma",
        settings=ALL,
        learning_rate=1e-3,
        whole=True,
    ),
}
LIVE = ("un-tuned", "frozen", "frozen-adapter")
"""Arms that the demo runs itself; the others come from committed results."""
TASKS = ("e2e_nlg", "snips")
