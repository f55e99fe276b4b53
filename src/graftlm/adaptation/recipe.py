"""Recipes: named, complete ways to make an encoder–decoder of language models, as values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from graftlm.errors import ConfigError
from graftlm.families.donor import Donor
from graftlm.model.config import BridgeConfig, CausalLMConfig, GraftConfig, StackConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the parts are joined; the fields are those of GraftConfig."""

    name: str
    bridge: BridgeConfig
    cross_mode: str
    encoder_attention: str
    memory_norm: str
    memory_rotary: bool
    memory_window: str
    positions: str
    decoder_start: str
    share_embeddings: bool
    share_layers: bool
    balanced_only: bool
    """Encoder and decoder must come from one LLM."""

    encoder_window: Literal["doubled", "split"] = "doubled"
    """What becomes of a causal window when the encoder sees both sides."""

    def config(self, decoder: Donor, encoder: Donor, *, source_tokenizer: bool = False) -> GraftConfig:
        """Config of the graft of two donors (the same one twice for a balanced graft).

        `source_tokenizer` says that their tokenizers differ.
        """
        stack = encoder.encoder_stack
        if self.encoder_attention == "bidirectional" and encoder.is_causal_lm:
            stack = stack.bidirectional(self.encoder_window)
        if self.bridge.kind == "aligned":
            stack = without_last_layer(stack)
        settings = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("name", "balanced_only", "encoder_window")
        }
        lm: CausalLMConfig = decoder.config
        return GraftConfig(
            encoder=stack,
            decoder=lm.decoder,
            recipe=self.name,
            made_from={"encoder": encoder.family.name, "decoder": decoder.family.name},
            source_tokenizer=source_tokenizer,
            # An encoder of its own kind was trained on whole sources; one made of an LLM never saw what ends them.
            source_eos=not encoder.is_causal_lm,
            tie_word_embeddings=lm.tie_word_embeddings,
            pad_token_id=lm.pad_token_id,
            bos_token_id=lm.bos_token_id,
            eos_token_id=lm.eos_token_id,
            decoder_start_token_id=start_token(lm),
            **settings,
        )


def without_last_layer(stack: StackConfig) -> StackConfig:
    """The layers whose states an aligned bridge reads: all but the last, and no final norm."""
    if stack.num_layers < 2:
        raise ConfigError("An aligned bridge needs a language model of at least two layers.")
    return dataclasses.replace(stack.first(stack.num_layers - 1), final_norm=False)


def start_token(config: CausalLMConfig) -> int:
    """The token that begins a target: BOS, else EOS for models without one (such as Qwen3)."""
    eos = config.eos_token_id
    first = eos[0] if isinstance(eos, list) and eos else eos
    start = config.bos_token_id if config.bos_token_id is not None else first
    if not isinstance(start, int):
        raise ConfigError("The source model has neither a BOS nor an EOS token in its config; add one of them.")
    return start


LOSSLESS = Recipe(
    name="lossless",
    bridge=BridgeConfig(kind="aligned"),
    cross_mode="merged",
    encoder_attention="causal",
    memory_norm="layer_input",
    memory_rotary=True,
    memory_window="by_position",
    positions="continued",
    decoder_start="last_source_token",
    share_embeddings=True,
    share_layers=True,
    balanced_only=True,
)
"""The encoder–decoder computes the LLM's own logits; the decoder is the LLM, bit for bit, and is held only once."""

T5GEMMA = Recipe(
    name="t5gemma",
    bridge=BridgeConfig(kind="last"),
    cross_mode="separate",
    encoder_attention="bidirectional",
    memory_norm="none",
    memory_rotary=False,
    memory_window="none",
    positions="restarted",
    decoder_start="bos",
    share_embeddings=False,
    share_layers=False,
    balanced_only=False,
)
"""Source: arXiv 2504.06225, section 3.1; transformers, models/t5gemma."""

T5GEMMA2 = Recipe(
    name="t5gemma2",
    bridge=BridgeConfig(kind="last"),
    cross_mode="merged",
    encoder_attention="bidirectional",
    encoder_window="split",
    memory_norm="none",
    memory_rotary=False,
    memory_window="none",
    positions="restarted",
    decoder_start="bos",
    share_embeddings=True,
    share_layers=False,
    balanced_only=True,
)
"""Source: arXiv 2512.14856, section 2; transformers, models/t5gemma2."""

RECIPES = {recipe.name: recipe for recipe in (LOSSLESS, T5GEMMA, T5GEMMA2)}


def recipe_named(name: str) -> Recipe:
    """A recipe by name. Raises: ConfigError for an unknown one."""
    if name not in RECIPES:
        raise ConfigError(f"Unknown recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
