"""Grafts in folders: loading with every misfit found before a tensor is read, and saving whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from graftlm.adaptation.adapt import adapt
from graftlm.data.tokenizers import Tokenizers
from graftlm.errors import CheckpointError
from graftlm.families.locate import locate
from graftlm.families.registry import FAMILIES, family_of
from graftlm.families.stock_config import read_json
from graftlm.families.tensors import TensorFolder, disk_errors
from graftlm.files import atomic_folder, write_json
from graftlm.model.config import GraftConfig
from graftlm.model.encoder_model import EncoderModel
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.pretrained import stored_shapes

RUN = "run.json"
"""Record of the training that wrote a graft."""


def load_graft(model: str | Path, dtype: torch.dtype | None = None) -> GraftForConditionalGeneration:
    """A graft, or any encoder–decoder of a known family, from a local folder or the hub.

    `dtype` None keeps the stored one.

    Raises: CheckpointError for a folder that holds no graft or damaged weights, ConfigError for unknown settings.
    """
    folder = locate(model)
    if needs_no_recipe(folder):
        return adapt(folder, dtype=dtype)
    open_graft(folder, model)
    loaded: GraftForConditionalGeneration = GraftForConditionalGeneration.from_pretrained(
        folder, dtype=dtype or "auto", local_files_only=True
    )
    return loaded.eval()


def needs_no_recipe(folder: Path) -> bool:
    """Whether the folder holds one of transformers' own encoder–decoders of a known family."""
    family = FAMILIES.get(str(read_json(folder / "config.json").get("model_type")))
    return family is not None and family.model is GraftForConditionalGeneration


def open_graft(folder: Path, name: str | Path) -> tuple[GraftConfig, TensorFolder]:
    """Config and headers of the graft that its user calls `name`, checked in full; no tensor is read yet.

    Raises: as load_graft.
    """
    kind = read_json(folder / "config.json").get("model_type")
    if kind != GraftConfig.model_type and family_of(kind).model is EncoderModel:
        raise CheckpointError(
            f"{name} is an encoder, which writes nothing; join it to a language model first: "
            f"graftlm adapt LLM --encoder-from {name} --recipe t5gemma --out DIR."
        )
    if kind != GraftConfig.model_type:
        raise CheckpointError(f"{name} is a language model; make a graft of it first: graftlm adapt {name} --out DIR.")
    config = GraftConfig.from_pretrained(folder)
    tensors = TensorFolder(folder)
    tensors.check(stored_shapes(GraftForConditionalGeneration, config))
    return config, tensors


def save_graft(
    model: GraftForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase | Tokenizers,
    out: str | Path,
    *,
    run: dict[str, Any],
    replace: bool = False,
) -> None:
    """Write model, tokenizers and run record into the folder `out`, for training that changed the decoder.

    The folder is new, unless it is to be replaced.
    """
    tokenizers = Tokenizers.of(tokenizer, model.config)
    with atomic_folder(out, replace=replace) as folder, disk_errors():
        model.save_pretrained(folder)
        tokenizers.save(folder)
        write_json(folder / RUN, run)
