"""Recipe scratch: an encoder–decoder of a given shape with random weights, to be trained from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from graftlm.adaptation.adapt import SHARD_BYTES, in_folder, in_memory
from graftlm.adaptation.plan import Plan, fresh_plan
from graftlm.data.tokenizers import Tokenizers, target_tokenizer_of
from graftlm.families.locate import locate
from graftlm.families.shape import read_shape, with_vocabulary
from graftlm.files import check_new_folder
from graftlm.model.modeling import GraftForConditionalGeneration


def new(
    shape: str | Path, tokenizer: str | Path, *, seed: int = 0, dtype: torch.dtype | None = None
) -> GraftForConditionalGeneration:
    """An encoder–decoder of a shape, for the tokens of the model or folder `tokenizer`, with random weights.

    `shape` is the name of one in the package, such as `t5gemma-s`, or a file as families/shape.py reads it. Weights are
    normal with the shape's `initializer_range`, biases zero and norms neutral; in fp32 unless `dtype` says otherwise.
    Raises: as read_shape; ConfigError for a tokenizer that cannot be loaded or has no EOS token.
    """
    plan, generation, _ = _laid_out(shape, tokenizer, seed)
    return in_memory(plan, generation, dtype)


def new_to_folder(
    shape: str | Path, out: str | Path, *, tokenizer: str | Path, seed: int = 0, shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """The same, written tensor by tensor into the new folder `out`; returns the initialisation report."""
    check_new_folder(out)
    plan, generation, tokenizers = _laid_out(shape, tokenizer, seed)
    return in_folder(plan, generation, tokenizers, out, shard_bytes)


def _laid_out(shape: str | Path, tokenizer: str | Path, seed: int) -> tuple[Plan, GenerationConfig, Tokenizers]:
    config = read_shape(shape)
    loaded = target_tokenizer_of(locate(tokenizer))
    plan = fresh_plan(with_vocabulary(config, loaded), seed)
    tokens = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    generation = GenerationConfig(**{name: getattr(plan.config, name) for name in tokens})
    return plan, generation, Tokenizers(loaded, loaded)
