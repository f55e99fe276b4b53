"""One transformer layer; encoder and decoder differ only in whether it reads a memory, and how."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EncoderDecoderCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from graftlm.model.adapter import EMPTY, LayerDeltas
from graftlm.model.attention import Attention, Gated, KeyValue
from graftlm.model.experts import Experts
from graftlm.model.grouping import Group
from graftlm.model.mask import PackedMask
from graftlm.model.mlp import MLP
from graftlm.model.norm import make_norm
from graftlm.model.rotary import RotaryTable
from graftlm.model.stack_config import StackConfig


@dataclass(frozen=True, kw_only=True)
class MemoryReading:
    """How a decoder and each of its layers read the memory."""

    mode: Literal["merged", "separate"]
    width: int
    """Width of the memory."""
    norm: bool
    """The memory passes the layer's own input norm first (merged only)."""
    rotary: bool
    """The memory's keys carry rotary positions."""
    window: bool
    """Sliding layers see the memory within their window."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What all layers of one type see in one forward pass: positions and masks."""

    mask: Tensor | PackedMask
    """(B, 1, T, K); in merged mode K counts the memory first, then the target."""
    rotary: RotaryTable | None = None
    """Of the layer's own tokens."""
    memory_mask: Tensor | PackedMask | None = None
    """(B, 1, T, S), separate mode only."""
    memory_rotary: RotaryTable | None = None
    """Of the memory's keys; None where the memory carries no positions."""
    bias: Tensor | None = None
    """(B, H, T, K), on the scores of the layer's own tokens."""
    causal_mask: Tensor | PackedMask | None = None
    """(B, 1, T, K), of an encoder with gates: what a layer sees while its gate is closed."""


def packed(
    views: Sequence[Mapping[str, View]], own: tuple[Group, ...], memory: tuple[Group, ...] | None = None
) -> dict[str, View]:
    """What is seen in a row of examples, by layer type, from what each group of them sees of itself and its memory."""
    return {kind: _packed([group[kind] for group in views], own, memory) for kind in views[0]}


def _packed(views: Sequence[View], own: tuple[Group, ...], memory: tuple[Group, ...] | None) -> View:
    masks = tuple(cast(Tensor, view.mask) for view in views)
    causal = tuple(view.causal_mask for view in views if isinstance(view.causal_mask, Tensor))
    read = tuple(view.memory_mask for view in views if isinstance(view.memory_mask, Tensor))
    biases = tuple(view.bias for view in views)
    # Without a mask of its own, a memory is seen under the same one.
    keys = (own,) if memory is None or read else (memory, own)
    return View(
        mask=PackedMask(own, keys, masks, biases, all_see=True),
        memory_mask=PackedMask(own, (memory,), read, (None,) * len(read), all_see=False) if memory and read else None,
        causal_mask=PackedMask(own, keys, causal, biases, all_see=True) if causal else None,
    )


class Block(GradientCheckpointingLayer):
    """Self-attention (merged with the memory, or not), optional cross-attention, feed-forward part; each a residual.

    Source: pre- and post-norm arXiv 2002.04745; norms of outputs alone arXiv 2501.00656, section 3.2; sandwich norms
    and cross-attention order as in T5Gemma (arXiv 2504.06225, 3.1); merged attention T5Gemma 2 (arXiv 2512.14856, 2);
    parallel feed-forward part arXiv 2204.06745, section 2.1.
    """

    def __init__(
        self, config: StackConfig, index: int, reading: MemoryReading | None = None, *, gated: bool = False
    ) -> None:
        super().__init__()
        self.index = index
        self.layer_type = config.layer_types[index]
        self.reading = reading
        self.rotated = index not in config.unrotated_layers
        self.post_norm = config.norm_placement == "post"
        self.parallel = config.parallel_residual
        self.dropout = config.residual_dropout
        self.attention_norm = _in_norm(config) if index or config.first_attention_norm else nn.Identity()
        self.attention = Attention(config, gated=gated)
        self.attention_out_norm = _out_norm(config)
        if reading is not None and reading.mode == "separate":
            self.cross_attention_norm = _in_norm(config)
            self.cross_attention = Attention(config, memory_width=reading.width)
            self.cross_attention_out_norm = _out_norm(config)
        self.mlp_norm = _in_norm(config)
        self.mlp = Experts(config) if config.experts and index in config.experts.layers else MLP(config)
        self.mlp_out_norm = _out_norm(config)

    def forward(
        self,
        x: Tensor,
        view: View,
        memory: Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        deltas: LayerDeltas = EMPTY,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); `memory` (B, S, D') is not needed once `past_key_values` holds its keys."""
        beside = deltas.get("attention", EMPTY)
        before, y = x, self.attention_norm(x)
        rotary = view.rotary if self.rotated else None
        own = self.attention.key_value(y, rotary, beside)
        if past_key_values is not None:
            own = KeyValue(*past_key_values.self_attention_cache.update(own.key, own.value, self.index))
        parts = [own]
        if self.reading is not None and self.reading.mode == "merged":
            parts.insert(0, self.memory_key_value(memory, view, past_key_values, deltas))
        gate, query = self.attention.gate, self.attention.query(y, rotary, beside)
        gated = None if gate is None or view.causal_mask is None else Gated(view.causal_mask, gate(y))
        y = self.attention(query, parts, view.mask, beside, view.bias, gated)
        x = self._add(x, y, self.attention_out_norm)
        if self.reading is not None and self.reading.mode == "separate":
            assert view.memory_mask is not None
            beside = deltas.get("cross_attention", EMPTY)
            turned = rotary if view.memory_rotary is not None else None
            query = self.cross_attention.query(self.cross_attention_norm(x), turned, beside)
            read = self.memory_key_value(memory, view, past_key_values, deltas)
            y = self.cross_attention(query, [read], view.memory_mask, beside)
            x = self._add(x, y, self.cross_attention_out_norm)
        y = self.mlp(self.mlp_norm(before if self.parallel else x), deltas.get("mlp", EMPTY))
        return self._add(x, y, self.mlp_out_norm)

    def _add(self, x: Tensor, y: Tensor, norm: nn.Module) -> Tensor:
        """The residual sum, with the norm that stands before or after it."""
        if self.training and self.dropout:
            y = F.dropout(y, self.dropout)
        return cast(Tensor, norm(x + y) if self.post_norm else x + norm(y))

    def memory_key_value(
        self,
        memory: Tensor | None,
        view: View,
        past_key_values: EncoderDecoderCache | None = None,
        deltas: LayerDeltas = EMPTY,
    ) -> KeyValue:
        """Keys and values of the memory, computed once per source and then taken from the cache."""
        assert self.reading is not None
        if past_key_values is not None and past_key_values.is_updated.get(self.index):
            layer = cast(DynamicLayer, past_key_values.cross_attention_cache.layers[self.index])
            return KeyValue(cast(Tensor, layer.keys), cast(Tensor, layer.values))
        assert memory is not None, "the first step of decoding needs the memory"
        name = "attention" if self.reading.mode == "merged" else "cross_attention"
        attention: Attention = getattr(self, name)
        if self.reading.norm:
            memory = self.attention_norm(memory)
        rotary = view.memory_rotary if self.rotated else None
        made = attention.key_value(memory, rotary, deltas.get(name, EMPTY))
        if past_key_values is not None:
            made = KeyValue(*past_key_values.cross_attention_cache.update(made.key, made.value, self.index))
            past_key_values.is_updated[self.index] = True
        return made


class Layers(nn.ModuleList):
    """The layers of a stack, in order."""

    def __iter__(self) -> Iterator[Block]:
        return cast(Iterator[Block], super().__iter__())


def _in_norm(config: StackConfig) -> nn.Module:
    return make_norm(config) if config.norm_placement in ("pre", "sandwich") else nn.Identity()


def _out_norm(config: StackConfig) -> nn.Module:
    return nn.Identity() if config.norm_placement == "pre" else make_norm(config)
