"""The decoder stack: a language model whose layers may read a memory."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EncoderDecoderCache

from graftlm.model.adapter import RowAdapters
from graftlm.model.block import Block, Layers, MemoryReading, View, packed
from graftlm.model.config import StackConfig
from graftlm.model.embedding import Embedding
from graftlm.model.grouping import Group
from graftlm.model.mask import visible
from graftlm.model.norm import make_norm
from graftlm.model.relative_bias import RelativeBias
from graftlm.model.rotary import Rotary, RotaryTable
from graftlm.model.stem import Stem


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where tokens stand: positions and which of them are real; each (B, K)."""

    positions: Tensor
    valid: Tensor
    groups: tuple[Group, ...] | None = None
    """Where examples stand in the one row of a packed batch; None where rows are examples."""

    def of_groups(self) -> list[Self]:
        """The tokens of each group, whose rows are examples."""
        return [
            type(self)(positions=self.positions[0][group.tokens], valid=self.valid[0][group.tokens] & group.valid)
            for group in self.groups or ()
        ]


class Decoder(nn.Module):
    """Embedding, layers and final norm; `memory` None makes it the plain language model."""

    def __init__(self, config: StackConfig, memory: MemoryReading | None = None) -> None:
        super().__init__()
        self.config = config
        self.memory = memory
        self.embedding = Embedding(config.vocab_size, config.hidden_size, config.embedding_scale)
        self.stem = Stem(config)
        self.layers = Layers(Block(config, i, memory) for i in range(config.num_layers))
        self.norm = make_norm(config) if config.final_norm else nn.Identity()
        if config.relative_bias is not None:
            self.relative_bias = RelativeBias(config.relative_bias, config.num_heads)
        self.rotary = Rotary(config)

    def forward(
        self,
        ids: Tensor,
        target: Placement,
        memory: Tensor | None = None,
        source: Placement | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        adapters: RowAdapters | None = None,
    ) -> list[Tensor]:
        """States of the target tokens: h_0 … h_M and, last, the normed output; each (B, T, D).

        Shapes: ids (B, T); `target` places all tokens so far, cached ones included (B, past + T);
        memory (B, M or 1, S, D') and `source`, its placement (B, S). Neither is read where no memory is set up.
        `adapters` stand beside the linear maps of their rows, on the memory's keys and values too where those are made.
        """
        x = self.stem(self.embedding(ids), target.positions[:, -ids.shape[1] :])
        views = self.views(x, target, source)
        states = [x]
        deltas = (adapters or RowAdapters()).layers(len(self.layers))
        for layer, beside in zip(self.layers, deltas, strict=True):
            # A memory of one entry serves every layer; by then it may already be cached, and be None.
            read = None if memory is None else memory[:, min(layer.index, memory.shape[1] - 1)]
            x = layer(x, views[layer.layer_type], read, past_key_values=past_key_values, deltas=beside)
            states.append(x)
        output = self.norm(x)
        dropout = self.config.output_dropout if self.training else 0.0
        states.append(F.dropout(output, dropout) if dropout else output)
        return states

    def views(self, x: Tensor, target: Placement, source: Placement | None) -> dict[str, View]:
        """Masks and rotary tables by layer type, for the last T of the placed target tokens."""
        queries = target.positions[:, -x.shape[1] :]
        rotary = self.rotary(queries, x.dtype)
        memory_rotary = self.memory_tables(source, x.dtype)
        if target.groups is None:
            views = self._seen(queries, target, source)
        else:
            assert source is not None
            pairs = zip(target.of_groups(), source.of_groups(), strict=True)
            seen = [self._seen(own.positions, own, read) for own, read in pairs]
            views = packed(seen, target.groups, source.groups)
        return {
            kind: replace(view, rotary=rotary.get(kind), memory_rotary=memory_rotary.get(kind))
            for kind, view in views.items()
        }

    def _seen(self, queries: Tensor, target: Placement, source: Placement | None) -> dict[str, View]:
        bias = None if self.config.relative_bias is None else self.relative_bias(queries, target.positions)
        views: dict[str, View] = {}
        for kind in dict.fromkeys(self.config.layer_types):
            window = self.config.window if kind == "sliding_attention" else None
            mask = visible(queries, target.positions, target.valid, causal=True, window=window)
            seen = None
            if self.memory is not None:
                assert source is not None
                bound = window if self.memory.window else None
                seen = visible(queries, source.positions, source.valid, causal=False, window=bound)
                if self.memory.mode == "merged":
                    mask, seen = torch.cat((seen, mask), dim=-1), None
            views[kind] = View(mask=mask, memory_mask=seen, bias=bias)
        return views

    def memory_tables(self, source: Placement | None, dtype: torch.dtype) -> dict[str, RotaryTable]:
        """Rotary tables of the memory's keys by layer type; empty where the memory carries no positions."""
        if source is None or self.memory is None or not self.memory.rotary:
            return {}
        return self.rotary(source.positions, dtype)
