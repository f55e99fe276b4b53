"""The arms of the steering study, as data: how a graft is made before its decoder is frozen, and what is tuned then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Start:
    """A graft, and how much all of it is trained on texts and tasks before anything is frozen."""

    title: str
    recipe: str = "lossless"
    attention: str = "bidirectional"
    """Of the encoder."""
    share: float = 1.0
    """Of the updates that a scale has for it; 0 leaves the graft as the recipe makes it."""
    settings: Mapping[str, Any] = field(default_factory=lambda: {"share_layers": True})
    """Fields of TuneSettings that differ from those of the scale."""
    rate_of: str | None = None
    """The start whose learning rate this one takes, instead of searching one."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is tuned for one task."""

    title: str
    settings: Mapping[str, Any] | None = field(default_factory=dict)
    """Fields of TuneSettings that differ from those of the scale; None tunes nothing."""
    bridge: Mapping[str, Any] | None = None
    """Fields of BridgeConfig, for a bridge that begins as the graft's own."""
    attention: str | None = None
    """Of the encoder, instead of the start's."""


UNTUNED, ENCODER, EVERYTHING = "un-tuned", "encoder", "everything"
LORA = {"decoder_adapter": "lora"}
ARMS: dict[str, Arm] = {
    UNTUNED: Arm(title="nothing", settings=None),
    ENCODER: Arm(title="the encoder"),
    "encoder-bias": Arm(title="encoder, biases beside the decoder", settings={"decoder_adapter": "bias"}),
    "encoder-ia3": Arm(title="encoder, (IA)³ beside the decoder", settings={"decoder_adapter": "ia3"}),
    **{
        f"encoder-lora-{rank}": Arm(
            title=f"encoder, LoRA of rank {rank} beside the decoder", settings=LORA | {"adapter_rank": rank}
        )
        for rank in (2, 8, 32)
    },
    "adapter": Arm(title="that LoRA of rank 8 alone", settings=LORA | {"adapter_rank": 8, "freeze": "decoder,encoder"}),
    "encoder-bridge": Arm(
        title="encoder, linear bridge",
        bridge={"kind": "linear", "include_embedding": True},
    ),
    "encoder-memory": Arm(
        title="encoder, keys and values of cross-attention",
        settings={"freeze": "decoder,!*.cross_attention.k_proj*,!*.cross_attention.v_proj*"},
    ),
    EVERYTHING: Arm(title="everything", settings={"freeze": "none"}),
    "causal-full": Arm(title="decoder-only, everything", settings={"baseline": "causal-full"}, attention="causal"),
    "causal-lora": Arm(
        title="decoder-only, a LoRA as large as the encoder", settings={"baseline": "causal-lora"}, attention="causal"
    ),
}

ADAPTED, RAW = "adapted", "raw"
FIRST = Start(title="lossless, a tenth of it", share=0.1)
SEPARATE: Mapping[str, Any] = {}
STARTS: dict[str, Start] = {
    "adapted-10": FIRST,
    "adapted-50": replace(FIRST, title="lossless, half of it", share=0.5, rate_of="adapted-10"),
    ADAPTED: replace(FIRST, title="lossless, adapted", share=1.0, rate_of="adapted-10"),
    RAW: Start(title="lossless, not adapted", share=0.0, settings={}),
    "causal": replace(FIRST, title="lossless, causal encoder", attention="causal", share=1.0, rate_of="adapted-10"),
    "own-encoder": replace(
        FIRST, title="lossless, encoder with weights of its own", share=1.0, settings=SEPARATE, rate_of="adapted-10"
    ),
    **{
        name: start
        for recipe in ("t5gemma", "t5gemma2")
        for name, start in {
            f"{recipe}-10": Start(title=f"{recipe}, a tenth of it", recipe=recipe, share=0.1, settings=SEPARATE),
            recipe: Start(title=f"{recipe}, adapted", recipe=recipe, settings=SEPARATE, rate_of=f"{recipe}-10"),
        }.items()
    },
}
"""Those of a tenth search the learning rate for the others of their recipe."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An arm on a task, from a start."""

    start: str
    task: str
    arm: str

    @property
    def name(self) -> str:
        """Of its jobs and rows."""
        return f"{self.start}.{self.task}.{self.arm}"
