"""A graft in a folder as the source of another one, which differs in its bridge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from transformers import GenerationConfig

from graftlm.families.tensors import TensorFolder, TensorInfo
from graftlm.model.config import GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.pretrained import skeleton


@dataclass(frozen=True)
class GraftDonor:
    """What `Donor` is for a model of a family."""

    folder: Path
    config: GraftConfig
    tensors: TensorFolder
    is_seq2seq: ClassVar[bool] = True

    @cached_property
    def tied(self) -> dict[str, str]:
        """Names of tensors that are not stored again -> names of those that are."""
        return skeleton(GraftForConditionalGeneration, self.config).tied

    def encoder_tensor(self, name: str) -> str:
        """Name of the stored tensor that holds one of the encoder's."""
        return self.tied.get(name, name)

    def info(self, name: str) -> TensorInfo:
        """Shape and dtype of a stored tensor, and the file that holds it."""
        return self.tensors.infos[name]

    def read(self, name: str) -> torch.Tensor:
        """A tensor, as stored."""
        return self.tensors.read(name)

    def source_name(self, name: str) -> str:
        """Its name in the source."""
        return name

    def generation_config(self) -> GenerationConfig:
        """How the source generates by default."""
        if (self.folder / "generation_config.json").is_file():
            return GenerationConfig.from_pretrained(self.folder)
        tokens = ("pad_token_id", "bos_token_id", "eos_token_id")
        return GenerationConfig(**{field: getattr(self.config, field) for field in tokens})


def open_graft_donor(folder: Path) -> GraftDonor:
    """Read headers and config of a graft's folder; no tensor yet. Raises: CheckpointError, ConfigError."""
    config = GraftConfig.from_pretrained(folder)
    donor = GraftDonor(folder, config, TensorFolder(folder))
    donor.tensors.check(skeleton(GraftForConditionalGeneration, config).shapes)
    return donor
