"""Shapes of encoder–decoders: the config of a family without a vocabulary, as a file that says what sizes it has."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from graftlm.data.yaml_file import read_yaml
from graftlm.errors import ConfigError, ConversionError
from graftlm.families.registry import family_of
from graftlm.families.stock_config import complete
from graftlm.model.config import GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration

SHAPES = {path.stem: path for path in sorted((Path(__file__).parent / "shapes").glob("*.yaml"))}
"""Names of the shapes in the package -> their files."""
SCRATCH = "scratch"
"""Recipe of a model without donors."""


def read_shape(shape: str | Path) -> GraftConfig:
    """Config of a shape in SHAPES, or of a YAML file that holds fields of transformers' config of such a model.

    Its vocabulary and tokens are those that transformers takes where a config names none.
    Raises: ConfigError for what is no shape of an encoder–decoder, ConversionError for fields that its family does not
    have, TaskError for a file that cannot be read.
    """
    path = SHAPES.get(str(shape), Path(shape))
    if not path.is_file():
        raise ConfigError(f"{shape} is not a shape; choose one of {', '.join(SHAPES)}, or give a YAML file.")
    raw = read_yaml(path)
    family = family_of(raw["model_type"]) if "model_type" in raw else None
    if family is None or family.model is not GraftForConditionalGeneration:
        raise ConfigError(f"{path} is the shape of no encoder-decoder; set model_type to one, such as t5gemma.")
    try:
        config: GraftConfig = family.config.read(raw, complete(raw))
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error
    config.recipe, config.made_from = SCRATCH, {"encoder": family.name, "decoder": family.name}
    return config


def with_vocabulary(config: GraftConfig, tokenizer: PreTrainedTokenizerBase) -> GraftConfig:
    """`config` for the tokens of a tokenizer; a target begins with its BOS, or with its EOS where it has none."""
    size = max(tokenizer.get_vocab().values()) + 1
    stacks = {side: dataclasses.replace(getattr(config, side), vocab_size=size) for side in ("encoder", "decoder")}
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    changed: dict[str, Any] = {side: stack.to_dict() for side, stack in stacks.items()}
    changed |= {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": bos, "eos_token_id": eos}
    changed |= {"decoder_start_token_id": eos if bos is None else bos}
    return GraftConfig.from_dict(config.to_dict() | changed)
