"""A pretrained LLM as a source of weights: its config in our terms, and its tensors under our names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, GenerationConfig

from graftlm.errors import CheckpointError, ConversionError
from graftlm.families.config_map import Values
from graftlm.families.locate import locate
from graftlm.families.registry import family_of
from graftlm.families.spec import Family
from graftlm.families.tensors import TensorFolder, TensorInfo
from graftlm.model.causal_lm import CausalLM
from graftlm.model.config import CausalLMConfig
from graftlm.model.pretrained import stored_shapes


@dataclass(frozen=True)
class Donor:
    """One source checkpoint, checked in full: every expected tensor is there in its shape, and no other."""

    folder: Path
    family: Family
    config: CausalLMConfig
    tensors: TensorFolder

    def info(self, name: str) -> TensorInfo:
        """Header of one of our tensors."""
        return self.tensors.infos[self.source_name(name)]

    def read(self, name: str) -> torch.Tensor:
        """One of our tensors, as stored."""
        return self.tensors.read(self.source_name(name))

    def source_name(self, name: str) -> str:
        """Name of one of our tensors in the source."""
        found = self.family.weights.to_source(name)
        assert found is not None, name
        return found

    def generation_config(self) -> GenerationConfig:
        """How the source generates by default."""
        if (self.folder / "generation_config.json").is_file():
            return GenerationConfig.from_pretrained(self.folder)
        return GenerationConfig.from_model_config(_stock(read_json(self.folder / "config.json")))


def open_donor(folder: str | Path) -> Donor:
    """Read headers and config of a checkpoint folder; no tensor yet.

    Raises: ConversionError for an unknown family or unsupported settings, CheckpointError for weights that are
    damaged or do not fit the config (all misfits at once).
    """
    folder = Path(folder)
    raw = read_json(folder / "config.json")
    family = family_of(raw.get("model_type"))
    config = family.config.read(raw, complete(raw))
    donor = Donor(folder, family, config, TensorFolder(folder))
    _check_tensors(donor)
    return donor


def load_causal_lm(source: str | Path, dtype: torch.dtype | None = None) -> CausalLM:
    """The source LLM in this package's modules, in memory; `dtype` None keeps the stored one (the widest)."""
    donor = open_donor(locate(source))
    with torch.device("meta"):
        model = CausalLM(donor.config)
    names = stored_shapes(CausalLM, donor.config)
    dtype = dtype or max((donor.info(name).dtype for name in names), key=lambda stored: stored.itemsize)
    state = {name: donor.read(name).to(dtype) for name in names}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    return model.eval()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises: CheckpointError when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read; give the folder of a model with its {path.name}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return value


def complete(raw: Values) -> Values:
    """The config's fields after transformers filled in defaults and renamed old ones."""
    config = _stock(raw)
    names = raw.keys() | config.to_dict().keys()
    return {name: getattr(config, name) for name in dir(config) if name in names}


def _stock(raw: Values) -> Any:
    try:
        return CONFIG_MAPPING[raw["model_type"]].from_dict(dict(raw))
    except Exception as error:
        # transformers validates with several libraries' exception types.
        raise ConversionError(f"transformers refuses this config: {' '.join(str(error).split())}.") from error


def _check_tensors(donor: Donor) -> None:
    expected = stored_shapes(CausalLM, donor.config)
    ignored = {name for name in donor.tensors.infos if donor.family.weights.is_dropped(name)}
    head = donor.source_name("lm_head.weight")
    if "lm_head.weight" not in expected and head in donor.tensors.infos and _same_table(donor):
        ignored.add(head)
    donor.tensors.check({donor.source_name(name): shape for name, shape in expected.items()}, ignored)


def _same_table(donor: Donor) -> bool:
    """A tied model may store its table twice, if both copies are the same."""
    head, table = donor.read("lm_head.weight"), donor.read("decoder.embedding.weight")
    return head.shape == table.shape and head.dtype == table.dtype and torch.equal(head, table)
