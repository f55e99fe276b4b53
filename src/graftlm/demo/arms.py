"""The arms of the demo: the ways to teach a model a task that are compared, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to teach a task; all arms have the same data, order of examples, batches and number of updates."""

    title: str
    recipe: str = "lossless"
    bidirectional: bool = True
    """The encoder sees both sides."""
    settings: Mapping[str, Any] | None = field(default_factory=dict)
    """Fields of TuneSettings that differ from the defaults; None does not train at all."""
    learning_rate: float = 3e-3
    """The better of two by validation loss: e2e_nlg, one seed, 100 updates."""
    shuffled: bool = False
    """Every training target comes with the source of another one: a control that can learn only the targets."""
    whole: bool = False
    """A whole model is written, instead of what is added to the shared language model."""


ALL, LORA = {"freeze": "none"}, {"decoder_adapter": "lora", "adapter_rank": 8}
ARMS: dict[str, Arm] = {
    "un-tuned": Arm(title="un-tuned graft", bidirectional=False, settings=None),
    "frozen": Arm(title="encoder, decoder frozen"),
    "frozen-shuffled": Arm(title="the same, sources shuffled (control)", shuffled=True),
    "frozen-adapter": Arm(title="encoder + decoder adapter (LoRA 8)", settings=LORA),
    "adapter": Arm(
        title="decoder adapter alone (LoRA 8)",
        bidirectional=False,
        settings=LORA | {"freeze": "decoder,encoder"},
        learning_rate=1e-2,
    ),
    "everything": Arm(title="everything trained", settings=ALL, learning_rate=1e-3, whole=True),
    "causal-full": Arm(
        title="plain LLM, everything trained",
        bidirectional=False,
        settings={"baseline": "causal-full"},
        learning_rate=1e-3,
        whole=True,
    ),
    "causal-lora": Arm(
        title="plain LLM, LoRA as large as the encoder",
        bidirectional=False,
        settings={"baseline": "causal-lora"},
        learning_rate=1e-3,
    ),
    "t5gemma": Arm(
        title="recipe t5gemma, everything trained", recipe="t5gemma", settings=ALL, learning_rate=1e-3, whole=True
    ),
}
LIVE = ("un-tuned", "frozen", "frozen-adapter")
"""Arms that the demo runs itself; the others come from committed results."""
TASKS = ("e2e_nlg", "snips")
