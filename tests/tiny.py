"""Tiny random language models in which every mechanism matters, and batches that are padded in every way."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from graftlm.model.config import BridgeConfig, GraftConfig, StackConfig
from graftlm.model.modeling import GraftForConditionalGeneration

VOCABULARY = 288
WINDOW = 5
PAD, BOS, EOS = 0, 1, 2
MODULE, WHOLE = 1e-5, 1e-4
"""Tolerances in fp32: of one module, and end to end."""

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
ROPE: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {
        "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 2.0, 3.0, 4.0],
        "original_max_position_embeddings": 16,
    },
    "llama3": LLAMA3 | {"original_max_position_embeddings": 16},
}


@dataclass(frozen=True, kw_only=True)
class Names:
    """What transformers calls the modules of a base model, and those of one layer."""

    layers: str = "layers"
    attention: str = "self_attn"
    mlp: str = "mlp"
    norm: str = "norm"
    rotary: str = "rotary_emb"


@dataclass(frozen=True)
class Tiny:
    """A decoder-only family of transformers at a tiny size, and what tests need to know of it."""

    config: type[PreTrainedConfig]
    settings: dict[str, Any]
    norm_centre: float = 1.0
    """The weight that makes a norm neutral."""
    kv_heads: tuple[int | None, ...] = (1, 2, 4)
    """Numbers of key/value heads that it can have, 4 being that of query heads; None where there is no choice."""
    names: Names = Names()


FAMILIES: dict[str, Tiny] = {
    "llama": Tiny(
        LlamaConfig,
        {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3},
    ),
    "mistral": Tiny(MistralConfig, {"num_key_value_heads": 2, "sliding_window": WINDOW}),
    "qwen2": Tiny(
        Qwen2Config,
        {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "qwen3": Tiny(
        Qwen3Config,
        {"num_key_value_heads": 4, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "gemma": Tiny(GemmaConfig, {"num_key_value_heads": 1, "attention_bias": True}, norm_centre=0.0),
    "gemma2": Tiny(
        Gemma2Config,
        {
            "num_key_value_heads": 2,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 8.0,
        },
        norm_centre=0.0,
    ),
    "gemma3_text": Tiny(
        Gemma3TextConfig,
        {
            "num_key_value_heads": 2,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "query_pre_attn_scalar": 16,
            "final_logit_softcapping": 8.0,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0},
            },
        },
        norm_centre=0.0,
    ),
    "smollm3": Tiny(
        SmolLM3Config,
        {
            "num_key_value_heads": 2,
            "no_rope_layers": [1, 0, 1, 0],
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "layer_types": ["full_attention", "full_attention", "sliding_attention", "sliding_attention"],
            "mlp_bias": True,
        },
    ),
    "olmo2": Tiny(Olmo2Config, {"num_key_value_heads": 2, "attention_bias": True}),
}
LENGTHS = (14, 9, 1, 5)
"""Source tokens of the rows of `batch`: beyond the window, and a single one."""
SIDES = ("left", "right", "both")


def hf_config(family: str, **overrides: Any) -> PreTrainedConfig:
    """Config of a tiny model of one family."""
    tiny = FAMILIES[family]
    return tiny.config(**(SIZES | tiny.settings | overrides))


ROTARY = [family for family in FAMILIES if hasattr(hf_config(family), "rope_parameters")]
"""Families whose rotary frequencies can be scaled."""


def rope_settings(family: str, kind: str) -> dict[str, Any]:
    """Overrides that scale the rotary frequencies of every layer; dynamic and longrope change them after 16 tokens."""
    config = hf_config(family)
    nested = config.nested_rope_parameter_keys(config.rope_parameters)
    base = config.rope_parameters[nested[0]] if nested else config.rope_parameters
    kept = {name: base[name] for name in ("rope_theta", "partial_rotary_factor") if name in base}
    pairs = int(SIZES["head_dim"] * kept.get("partial_rotary_factor", 1.0)) // 2
    scaling = {name: value[:pairs] if isinstance(value, list) else value for name, value in ROPE[kind].items()}
    parameters = kept | scaling | {"rope_type": kind}
    return {
        "rope_parameters": {name: dict(parameters) for name in nested} if nested else parameters,
        "max_position_embeddings": 16 if kind == "dynamic" else 64,
    }


def stock_lm(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """transformers' own model, eager, with random weights."""
    model = AutoModelForCausalLM.from_config(hf_config(family, **overrides), attn_implementation="eager")
    return randomise(model, seed, norm_centre=FAMILIES[family].norm_centre).to(dtype)


@torch.no_grad()
def randomise(model: PreTrainedModel, seed: int = 0, norm_centre: float = 1.0) -> PreTrainedModel:
    """Weights so large that attention is far from uniform and caps, windows and norms all change the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.empty_like(parameter).normal_(generator=generator)
        parameter.copy_(noise * 0.3 + norm_centre if "norm" in name else noise * 0.25)
    return model.eval()


@torch.no_grad()
def noisy(module: nn.Module, seed: int = 0) -> Any:
    """The module with noise added to what it holds, so that an adapter that began as nothing matters."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.add_(torch.empty_like(parameter).normal_(std=0.3, generator=generator))
    return module


def stack(**overrides: Any) -> StackConfig:
    """A small stack with a window on its first layer."""
    values: dict[str, Any] = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 3,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "window": (WINDOW - 1, 0),
        "rotary": {kind: {"rope_theta": 100.0} for kind in ("full_attention", "sliding_attention")},
    }
    values |= overrides
    values.setdefault("layer_types", ("sliding_attention",) + ("full_attention",) * (values["num_layers"] - 1))
    return StackConfig(**values)


LOSSLESS: dict[str, Any] = {
    "encoder": stack(num_layers=2, final_norm=False),
    "decoder": stack(),
    "bridge": BridgeConfig(kind="aligned"),
}
PLAIN: dict[str, Any] = {
    "encoder": stack(),
    "decoder": stack(),
    "memory_norm": "none",
    "memory_rotary": False,
    "memory_window": "none",
    "positions": "restarted",
    "decoder_start": "bos",
    "encoder_attention": "bidirectional",
}
GRAFTS: dict[str, dict[str, Any]] = {
    "merged-source": LOSSLESS,
    "merged-bos": PLAIN | {"cross_mode": "merged"},
    "separate-source": PLAIN
    | {
        "cross_mode": "separate",
        "memory_rotary": True,
        "positions": "continued",
        "decoder_start": "last_source_token",
    },
    "separate-bos": PLAIN | {"cross_mode": "separate", "share_embeddings": False},
}
"""Both cross modes with both decoder starts."""


def graft(seed: int = 0, **settings: Any) -> GraftForConditionalGeneration:
    """A small random graft; the lossless form unless `settings` say otherwise."""
    tokens = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "decoder_start_token_id": BOS}
    return randomise(GraftForConditionalGeneration(GraftConfig(**(tokens | (settings or LOSSLESS)))), seed)


class Batch(NamedTuple):
    """Sources (B, S) with their mask, and targets (B, T)."""

    ids: Tensor
    mask: Tensor
    target: Tensor

    def row(self, i: int) -> Tensor:
        """Source of one row without padding; (n,)."""
        return self.ids[i][self.mask[i].bool()]


def batch(side: str, *, vocabulary: int = VOCABULARY, lengths: tuple[int, ...] = LENGTHS, target: int = 9) -> Batch:
    """The same rows for every `side` that the padding is on; the longest row has padding too where it is on both."""
    generator = torch.Generator().manual_seed(7)
    width = max(lengths) + (2 if side == "both" else 0)
    rows = [torch.randint(3, vocabulary, (length,), generator=generator) for length in lengths]
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        start = {"right": 0, "left": width - len(row), "both": (width - len(row)) // 2}[side]
        ids[i, start : start + len(row)] = row
        mask[i, start : start + len(row)] = 1
    return Batch(ids, mask, torch.randint(3, vocabulary, (len(rows), target), generator=generator))


def gap(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference."""
    assert ours.shape == theirs.shape
    return (ours.float() - theirs.float()).abs().max().item()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Gradient of every parameter that has one."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@functools.cache
def tokenizer(merges: int = VOCABULARY - 259) -> PreTrainedTokenizerFast:
    """Byte-level BPE with padding, BOS and EOS as entries 0, 1 and 2."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=259 + merges,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(["the quick brown fox jumps over the lazy dog and the lazy dog sleeps"] * 4, trainer)
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=trained, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@functools.cache
def word_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words between [CLS] and [SEP], without BOS and EOS; no id is one of `tokenizer`'s."""
    words = "[PAD] [UNK] [CLS] [SEP] the quick brown fox jumps over lazy dog and sleeps name a b c d e f g h [ ]"
    numbered = {word: VOCABULARY + number for number, word in enumerate(words.split())}
    made = Tokenizer(models.WordLevel(numbered, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, numbered[token]) for token in ("[CLS]", "[SEP]")]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)
