"""Tiny encoder–decoders of every family that has them, as transformers makes and stores them."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    GenerationConfig,
    MarianConfig,
    MBartConfig,
    MT5Config,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
)

from tiny import BOS, EOS, PAD, VOCABULARY, randomise

T5 = {
    "d_model": 32,
    "d_kv": 12,
    "d_ff": 40,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 11,
    "decoder_start_token_id": PAD,
}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
    "bos_token_id": BOS,
    "forced_eos_token_id": EOS,
}
MARIAN = BART | {
    "activation_function": "swish",
    "scale_embedding": True,
    "bos_token_id": None,
    "decoder_start_token_id": PAD,
}
TWO_TABLES = {"decoder_vocab_size": VOCABULARY + 12, "share_encoder_decoder_embeddings": False}
LANGUAGE = 7


class Tiny(NamedTuple):
    """One variant of a family."""

    kind: type[PreTrainedConfig]
    settings: dict[str, Any]
    own_head: bool = False
    """The weights hold a head beside the table, which transformers then does not tie."""
    generation: dict[str, Any] = {}
    counts_slots: bool = True
    """transformers' own counts padding as positions, so that only padding on the right leaves it as it is."""


SEQ2SEQ = {
    "t5": Tiny(T5Config, T5, counts_slots=False),
    "t5-gated": Tiny(T5Config, T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, True, {}, False),
    "mt5": Tiny(MT5Config, T5, True, {}, False),
    "mt5-tied": Tiny(MT5Config, T5 | {"feed_forward_proj": "gated-silu"}, False, {}, False),
    "bart": Tiny(
        BartConfig,
        BART | {"decoder_start_token_id": EOS},
        generation={
            "forced_bos_token_id": BOS,
            "no_repeat_ngram_size": 3,
            "min_length": 4,
            "num_beams": 3,
            "length_penalty": 2.0,
        },
    ),
    "bart-scaled": Tiny(BartConfig, BART | {"decoder_start_token_id": EOS, "scale_embedding": True}),
    "mbart": Tiny(MBartConfig, BART, generation={"forced_bos_token_id": LANGUAGE, "decoder_start_token_id": LANGUAGE}),
    "marian": Tiny(MarianConfig, MARIAN, generation={"bad_words_ids": [[PAD]]}),
    "marian-two": Tiny(MarianConfig, MARIAN | TWO_TABLES, generation={"bad_words_ids": [[PAD]]}),
    "marian-untied": Tiny(MarianConfig, MARIAN | TWO_TABLES | {"tie_word_embeddings": False}),
}


def seq2seq_config(name: str, **overrides: Any) -> PreTrainedConfig:
    """Config of a tiny encoder–decoder."""
    tokens = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": EOS}
    return SEQ2SEQ[name].kind(**(tokens | SEQ2SEQ[name].settings | overrides))


def store_seq2seq(name: str, folder: Path, dtype: torch.dtype = torch.float32, **overrides: Any) -> PreTrainedModel:
    """transformers' own model, eager, with random weights that all matter, as it reads it from the new `folder`."""
    model = AutoModelForSeq2SeqLM.from_config(seq2seq_config(name, **overrides))
    fixed = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    randomise(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for n, p in (*model.named_parameters(), *model.named_buffers()):
            if n in fixed:
                p.copy_(fixed[n])
            elif "relative_attention_bias" in n:
                p.mul_(8.0)
            elif "norm" in n and n.endswith("bias"):
                p.sub_(1.0)
            elif "encoder_attn.out_proj" in n:
                p.mul_(4.0)  # So that targets follow their source.
            elif n == "final_logits_bias":
                p.normal_(std=0.5, generator=generator)
    model.generation_config = GenerationConfig.from_model_config(model.config)
    for field, value in SEQ2SEQ[name].generation.items():
        setattr(model.generation_config, field, value)
    model.to(dtype).save_pretrained(folder)
    if SEQ2SEQ[name].own_head:
        edit(folder, **{"lm_head.weight": torch.randn(VOCABULARY, 32, generator=generator).to(dtype) * 0.25})
    stock = type(model).from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    stock.save_pretrained(folder)
    return stock.eval()


def edit(folder: Path, **tensors: Tensor | None) -> None:
    """Put tensors into the weights of a folder, or take them out."""
    path = folder / "model.safetensors"
    merged = load_file(path) | tensors
    save_file({name: tensor for name, tensor in merged.items() if tensor is not None}, path, {"format": "pt"})
