"""A pretrained model as a source of weights: its config in our terms, and its tensors under our names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from graftlm.errors import CheckpointError, ConfigError, ConversionError
from graftlm.families.locate import locate
from graftlm.families.registry import family_of
from graftlm.families.spec import Family
from graftlm.families.stacked import UnstackedFolder
from graftlm.families.stock_config import complete, read_json
from graftlm.families.tensors import TensorFolder, TensorInfo
from graftlm.families.weight_map import Place, WeightMap
from graftlm.model.causal_lm import CausalLM
from graftlm.model.config import StackConfig
from graftlm.model.encoder_model import EncoderModel
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.pretrained import GraftPreTrainedModel, Skeleton, skeleton

HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Donor:
    """One source checkpoint, checked in full: every expected tensor is there in its shape, and no other."""

    folder: Path
    family: Family
    config: Any
    """Ours: CausalLMConfig, EncoderConfig or GraftConfig, by the family's model."""
    tensors: TensorFolder

    @property
    def is_causal_lm(self) -> bool:
        """A decoder-only language model."""
        return self.family.model is CausalLM

    @property
    def is_encoder(self) -> bool:
        """An encoder-only model."""
        return self.family.model is EncoderModel

    @property
    def is_seq2seq(self) -> bool:
        """A whole encoder–decoder."""
        return self.family.model is GraftForConditionalGeneration

    @property
    def encoder_stack(self) -> StackConfig:
        """The layers that an encoder can be made of."""
        stack = self.config.decoder if self.is_causal_lm else self.config.encoder
        assert isinstance(stack, StackConfig)
        return stack

    def encoder_tensor(self, name: str) -> str:
        """Our name, in this donor, of an encoder's tensor `encoder.…`.

        A language model has it in its decoder, and so has an encoder–decoder the table that both of its sides read.
        """
        own = self.tied.get(name, name)
        return own if own in self.shapes else f"decoder.{name.removeprefix('encoder.')}"

    @cached_property
    def weights(self) -> WeightMap:
        """The family's table of tensor names, as far as it is about this config."""
        return self.family.weights.of(self.config)

    @cached_property
    def skeleton(self) -> Skeleton:
        """What our model of its config holds."""
        return skeleton(self.family.model, self.config)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """All of our tensors that it stores."""
        return self.skeleton.shapes

    @property
    def tied(self) -> dict[str, str]:
        """Our names of tensors that are not stored again -> names of those that are."""
        return self.skeleton.tied

    @cached_property
    def base(self) -> str:
        """What the names of its tensors begin with."""
        return self.weights.base_of(self.tensors.infos.keys())

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each of our tensors stands."""
        weights, present = self.weights, self.tensors.infos.keys()
        found = {name: weights.to_source(name, self.base, present) for name in self.shapes}
        missing = [name for name, place in found.items() if place is None]
        assert not missing, missing
        return {name: place for name, place in found.items() if place is not None}

    def info(self, name: str) -> TensorInfo:
        """Shape and dtype of one of our tensors, and the file that holds it."""
        place = self.places[name]
        if place.source in self.tensors.infos:
            stored = self.tensors.infos[place.source]
            return TensorInfo(stored.file, self.shapes[name], stored.dtype)
        floats = (info.dtype for info in self.tensors.infos.values() if info.dtype.is_floating_point)
        widest = max(floats, key=lambda dtype: dtype.itemsize)
        return TensorInfo(self.folder, self.shapes[name], widest)

    def read(self, name: str) -> torch.Tensor:
        """One of our tensors, as stored."""
        place = self.places[name]
        if place.source not in self.tensors.infos:
            assert place.rule.default is not None
            return torch.full(self.shapes[name], place.rule.default, dtype=self.info(name).dtype)
        shapes = [self.shapes[part] for part in place.ours]
        whole = self.tensors.read(place.source)
        part = place.rule.split(whole, shapes, self.config)[place.ours.index(name)]
        # A part on its own must not keep the whole in memory, nor share it with the other parts.
        return part if part is whole else part.clone(memory_format=torch.contiguous_format)

    def source_name(self, name: str) -> str:
        """Name, in the source, of the tensor that holds one of ours."""
        return self.places[name].source

    def generation_config(self) -> GenerationConfig:
        """How the source generates by default; old releases say it in the model's config."""
        if (self.folder / "generation_config.json").is_file():
            return GenerationConfig.from_pretrained(self.folder)
        return GenerationConfig.from_pretrained(
            self.folder, config_file_name="config.json", _from_model_config=True, local_files_only=True
        )


def open_donor(folder: str | Path) -> Donor:
    """Read headers and config of a checkpoint folder; no tensor yet.

    Raises: ConversionError for an unknown family or unsupported settings, CheckpointError for weights that are
    damaged or do not fit the config (all misfits at once).
    """
    folder = Path(folder)
    raw = read_json(folder / "config.json")
    family = family_of(raw.get("model_type"))
    try:
        config = family.config.read(raw, complete(raw))
    except ConversionError as error:
        raise ConversionError(f"{folder / 'config.json'}: {error}") from error
    donor = Donor(folder, family, config, UnstackedFolder(folder, family.weights.stacked))
    _check_depth(donor)
    if family.config.head_by_weights and not _has_tied_head(donor):
        config.tie_word_embeddings = False
        donor = replace(donor)  # What it has worked out was of a tied head.
    _check_tensors(donor)
    return donor


def load_donor(donor: Donor, dtype: torch.dtype | None = None) -> Any:
    """The source in this package's modules, in memory; `dtype` None keeps the stored one (the widest)."""
    with torch.device("meta"):
        model: GraftPreTrainedModel = donor.family.model(donor.config)
    dtype = dtype or max((donor.info(name).dtype for name in donor.shapes), key=lambda stored: stored.itemsize)
    state = {name: donor.read(name).to(dtype) for name in donor.shapes}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    return model.eval()


def load_causal_lm(source: str | Path, dtype: torch.dtype | None = None) -> CausalLM:
    """A decoder-only LLM in this package's modules. Raises: ConversionError for a model that is none."""
    donor = open_donor(locate(source))
    if not donor.is_causal_lm:
        raise ConversionError(f"{source} is a {donor.family.name} model; give a decoder-only language model.")
    model: CausalLM = load_donor(donor, dtype)
    return model


def _check_depth(donor: Donor) -> None:
    """A config that lies about its depth is refused before a model of that depth is laid out."""
    stored = len(donor.tensors.infos)
    for part in ("encoder", "decoder"):
        stack = getattr(donor.config, part, None)
        experts = stack.experts if stack is not None else None
        layers = 0 if stack is None else stack.num_layers
        if max(layers, 0 if experts is None else experts.number) > stored:
            raise CheckpointError(
                f"{donor.folder / 'config.json'} speaks of {layers} layers, but the weights beside it are only "
                f"{stored} tensors; fetch the folder again."
            )


def _has_tied_head(donor: Donor) -> bool:
    source = donor.weights.to_source(HEAD, donor.base)
    assert source is not None
    return source.source not in donor.tensors.infos or _is_copy(donor, source.source)


def _check_tensors(donor: Donor) -> None:
    infos, weights = donor.tensors.infos, donor.weights
    expected: dict[str, tuple[int, ...]] = {}
    for place in donor.places.values():
        if place.source in infos or place.rule.default is None:
            expected[place.source] = _source_shape(donor, place)
    others = [name for name in infos if name not in expected]
    ignored = {name for name in others if weights.is_dropped(name, donor.base) or _is_copy(donor, name)}
    donor.tensors.check(expected, ignored)


def _source_shape(donor: Donor, place: Place) -> tuple[int, ...]:
    """Shape of the source tensor that holds ours. Raises: ConfigError for a size that no tensor can have."""
    with torch.device("meta"):
        parts = [torch.empty(donor.shapes[name]) for name in place.ours]
    try:
        return tuple(place.rule.join(parts, donor.config).shape)
    except RuntimeError as error:
        raise ConfigError(f"The config asks for a tensor that cannot be made ({error}).") from error


def _is_copy(donor: Donor, name: str) -> bool:
    """A table may be stored once more under another name, if both copies are the same."""
    place = donor.weights.to_ours(name, donor.base)
    if place is None or len(place.ours) > 1:
        return False
    ours = donor.tied.get(place.ours[0], place.ours[0])
    if ours not in donor.places or donor.source_name(ours) not in donor.tensors.infos:
        return False
    copy, table = donor.tensors.read(name), donor.tensors.read(donor.source_name(ours))
    return copy.shape == table.shape and copy.dtype == table.dtype and torch.equal(copy, table)
