"""Where every tensor of a graft comes from: one table to check, report, stream to disk or load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from graftlm.adaptation.bridge_init import INITS, beginning, blended, initial_values
from graftlm.adaptation.cross_attention_init import is_copied, silent_value
from graftlm.adaptation.graft_donor import GraftDonor
from graftlm.adaptation.layers import Layers
from graftlm.adaptation.new_rows import rows_after
from graftlm.families.donor import Donor
from graftlm.families.tensors import TensorInfo
from graftlm.model.config import BridgeConfig, GraftConfig, StackConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.pretrained import stored_shapes

Side = Literal["encoder", "decoder"]
Donors = Mapping[Side, Donor | GraftDonor]
KEYS_AND_VALUES = (".cross_attention.k_proj.weight", ".cross_attention.v_proj.weight")
"""What bridge `joined` makes wider."""
OF_KV_HEADS = re.compile(r"attention\.(([kv]_proj)\.(weight|bias)|k_norm\.(weight|bias))$")
"""What has rows of each key/value head; the norm only where it is over all heads."""
CONSTANTS = {"zeros": 0.0, "ones": 1.0, "minus_ones": -1.0}


@dataclass(frozen=True)
class Origin:
    """Source of one tensor: a donor's tensor under our name for it, or a fresh initialisation."""

    side: Side | None
    name: str | None
    fresh: str | None
    """`normal`, one of CONSTANTS, or the initialisation of a bridge."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    repeats: int = 1
    """Times that each key/value head of the donor's tensor stands in this one, one after the other."""
    kept: int | None = None
    """Rows that are the donor's, of a table in which those after them are new."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Plan:
    """Origins of all tensors of a graft, in the order in which they are stored."""

    config: GraftConfig
    donors: Donors
    origins: dict[str, Origin]
    seed: int
    bridge_init: str | None = None
    """How the bridge begins; None where it has no weights."""
    cross_attention: str | None = None
    """How cross-attention begins, as cross_attention_init.py names it; None where a donor has it or nothing does."""

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in: the widest of its tensors, since donors may differ."""
        return max((origin.dtype for origin in self.origins.values()), key=lambda dtype: dtype.itemsize)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor, made or read one at a time."""
        generator = torch.Generator().manual_seed(self.seed)
        for name, origin in self.origins.items():
            yield name, self._make(name, origin, generator)

    def _make(self, name: str, origin: Origin, generator: torch.Generator) -> torch.Tensor:
        if origin.side is not None and origin.name is not None:
            tensor = self.donors[origin.side].read(origin.name)
            if origin.repeats > 1:
                stack = getattr(self.config, origin.side)
                tensor = tensor.unflatten(0, (-1, stack.head_dim)).repeat_interleave(origin.repeats, 0).flatten(0, 1)
            if origin.kept is not None:
                return rows_after(tensor, origin.kept, origin.shape[0], self.seed)
            # Keys and values of joined states read the last of them at first, as the donor's do.
            return tensor if tensor.shape == origin.shape else F.pad(tensor, (origin.shape[1] - tensor.shape[1], 0))
        if origin.fresh == "normal":
            std = self.config.initializer_range
            return torch.empty(origin.shape).normal_(std=std, generator=generator).to(origin.dtype)
        assert origin.fresh is not None
        if blended(origin.fresh)[0] in INITS:
            return initial_values(name, origin.shape, origin.fresh, self.config, generator).to(origin.dtype)
        return torch.full(origin.shape, CONSTANTS[origin.fresh], dtype=origin.dtype)


def make_plan(
    config: GraftConfig,
    donors: Donors,
    seed: int,
    bridge_init: str | None = None,
    cross_attention: str | None = None,
    kept: Mapping[str, Layers] | None = None,
) -> Plan:
    """Origin of every tensor of a graft of these donors.

    Stacks are copied layer by layer; `kept` are the layers of a side that leaves others out. Where the graft has more
    key/value heads than its donor, each of the donor's is repeated for the query heads that read it. Cross-attention
    that no donor has begins as `cross_attention` says. A donor that is an encoder–decoder already is taken as it is,
    but for a bridge with weights, which begins as `bridge_init` says.
    Source: arXiv 2504.06225, section 3.1.
    """
    assert isinstance(config.encoder, StackConfig)
    assert isinstance(config.bridge, BridgeConfig)
    joined, width = config.bridge.kind == "joined", config.encoder.hidden_size
    origins = {}
    for name, shape in stored_shapes(GraftForConditionalGeneration, config).items():
        side: Side = "encoder" if name.startswith("encoder.") else "decoder"
        layers = (kept or {}).get(side)
        source = _source(name if layers is None else layers.source(name), side, config, donors, cross_attention)
        if source is None:
            dtype = donors["decoder"].info("decoder.embedding.weight").dtype
            fresh = _fresh(name, config, bridge_init, cross_attention)
            origins[name] = Origin(None, None, fresh, shape, dtype)
        else:
            info: TensorInfo = donors[side].info(source)
            repeats = shape[0] // info.shape[0] if OF_KV_HEADS.search(name) else 1
            held = (info.shape[0] * repeats, *info.shape[1:])
            wanted = (shape[0], width) if joined and name.endswith(KEYS_AND_VALUES) else shape
            assert held == wanted, (name, info.shape, shape)
            origins[name] = Origin(side, source, None, shape, info.dtype, repeats)
    return Plan(config, donors, origins, seed, bridge_init, cross_attention)


def fresh_plan(config: GraftConfig, seed: int) -> Plan:
    """Every tensor of a graft without donors, in fp32."""
    shapes = stored_shapes(GraftForConditionalGeneration, config)
    made = {name: Origin(None, None, _fresh(name, config), shape, torch.float32) for name, shape in shapes.items()}
    return Plan(config, {}, made, seed)


def _source(name: str, side: Side, config: GraftConfig, donors: Donors, cross_attention: str | None) -> str | None:
    """The donor's tensor that holds one of ours, whose layers are numbered as the donor's; None where none does."""
    assert isinstance(config.decoder, StackConfig)
    donor = donors[side]
    if name.startswith("bridge."):
        return None
    if side == "encoder":
        return donor.encoder_tensor(name)
    if ".cross_attention" not in name or cross_attention is None:
        return donor.tied.get(name, name)
    copied = is_copied(cross_attention, donors["encoder"] is donors["decoder"])
    if not copied or silent_value(name, cross_attention, config.decoder) is not None:
        return None
    return name.replace(".cross_attention", ".attention")


def _fresh(name: str, config: GraftConfig, bridge_init: str | None = None, cross_attention: str | None = None) -> str:
    assert isinstance(config.decoder, StackConfig)
    silent = None if cross_attention is None else silent_value(name, cross_attention, config.decoder)
    if silent is not None:
        return silent
    if name.startswith("bridge."):
        return beginning(name, config, bridge_init)
    if name.endswith("norm.weight"):
        return "zeros" if config.decoder.norm_unit_offset else "ones"
    return "zeros" if name.endswith("bias") else "normal"
