"""Tiny T5Gemmas of both releases, as transformers makes and stores them."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel, T5Gemma2Config, T5GemmaConfig

from graftlm.families.t5gemma2 import NO_VISION
from tiny import SIZES, WINDOW, randomise, tokenizer

STACK = SIZES | {
    "num_key_value_heads": 2,
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 16,
    "final_logit_softcapping": 8.0,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
FIRST = STACK | {"attn_logit_softcapping": 5.0}
SECOND = STACK | {
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0},
    }
}
SHORT = {"num_hidden_layers": 2, "layer_types": STACK["layer_types"][:2], "intermediate_size": 40}
T5GEMMAS = ("t5gemma", "t5gemma2")


def t5gemma_config(name: str, encoder: dict[str, Any] | None = None, **overrides: Any) -> PreTrainedConfig:
    """Config of a tiny T5Gemma with a shorter encoder; `overrides` are of both stacks, `encoder` of that alone."""
    if name == "t5gemma":
        narrow = {"hidden_size": 48, "num_key_value_heads": 1} | SHORT
        return T5GemmaConfig(
            encoder=FIRST | narrow | overrides | (encoder or {}),
            decoder=FIRST | overrides,
            vocab_size=SIZES["vocab_size"],
            tie_word_embeddings=overrides.get("tie_word_embeddings", True),
        )
    text = SECOND | SHORT | overrides | (encoder or {})
    return T5Gemma2Config(
        encoder={"text_config": text, "vision_config": dict(NO_VISION), "eoi_token_index": SIZES["vocab_size"]},
        decoder=SECOND | overrides,
    )


def store_t5gemma(name: str, folder: Path, dtype: torch.dtype = torch.float32, **overrides: Any) -> PreTrainedModel:
    """transformers' own model, eager, with random weights that all matter, as it reads it from the new `folder`."""
    model = AutoModelForSeq2SeqLM.from_config(t5gemma_config(name, **overrides))
    randomise(model, norm_centre=0.0).to(dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return type(model).from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
