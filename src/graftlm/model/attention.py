"""Multi-head attention over a stack's own tokens, over a memory, or over both in one softmax."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftlm.model.adapter import EMPTY, LinearDeltas, adapted
from graftlm.model.config import StackConfig
from graftlm.model.grouping import joined, spread
from graftlm.model.kernels import Linear, attend
from graftlm.model.mask import PackedMask
from graftlm.model.norm import make_norm
from graftlm.model.rotary import RotaryTable


class KeyValue(NamedTuple):
    """Keys and values of some tokens; each (B, G, K, E)."""

    key: Tensor
    value: Tensor


class Gate(Linear):
    """How open attention is to what comes after a token, by head: tanh(x · W), with W zero at first."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, H, 1)."""
        return torch.tanh(super().forward(x)).unsqueeze(-1)


class Gated(NamedTuple):
    """A second attention of the same queries, under `mask` (B, 1, T, K), and how open the gate to the first one is."""

    mask: Tensor | PackedMask
    gate: Tensor
    """(B, T, H, 1)."""


class Attention(nn.Module):
    """Grouped-query attention with optional norms of queries and keys, soft-cap, bias on scores and rotary positions.

    `memory_width` is the width of what keys and values are made from; the stack's own width by default. With `gated` it
    has a gate, by which `forward` can be given a second mask.
    """

    def __init__(self, config: StackConfig, memory_width: int | None = None, *, gated: bool = False) -> None:
        super().__init__()
        self.config = config
        width, head = config.hidden_size, config.head_dim
        source = width if memory_width is None else memory_width
        self.q_proj = Linear(width, config.num_heads * head, bias=config.qkv_bias)
        self.k_proj = Linear(source, config.num_kv_heads * head, bias=config.qkv_bias)
        self.v_proj = Linear(source, config.num_kv_heads * head, bias=config.qkv_bias)
        self.o_proj = Linear(config.num_heads * head, width, bias=config.output_bias)
        if config.qk_norm:
            heads = (config.num_heads, config.num_kv_heads) if config.qk_norm_over == "all" else (1, 1)
            self.q_norm, self.k_norm = (make_norm(config, number * head) for number in heads)
        self.gate: Gate | None = Gate(width, config.num_heads, bias=False) if gated else None

    def query(self, x: Tensor, rotary: RotaryTable | None, deltas: LinearDeltas = EMPTY) -> Tensor:
        """(B, T, D) -> (B, H, T, E)."""
        query = self._normed("q_norm", adapted(self.q_proj, x, deltas.get("q_proj")))
        return query if rotary is None else rotary(query)

    def key_value(self, x: Tensor, rotary: RotaryTable | None, deltas: LinearDeltas = EMPTY) -> KeyValue:
        """(B, K, D) -> keys and values of these tokens."""
        key = self._normed("k_norm", adapted(self.k_proj, x, deltas.get("k_proj")))
        value = self._heads(adapted(self.v_proj, x, deltas.get("v_proj")))
        return KeyValue(key if rotary is None else rotary(key), value)

    def forward(
        self,
        query: Tensor,
        parts: list[KeyValue],
        mask: Tensor | PackedMask,
        deltas: LinearDeltas = EMPTY,
        bias: Tensor | None = None,
        gated: Gated | None = None,
    ) -> Tensor:
        """Attend to the concatenation of `parts` under `mask` (B, 1, T, K), with `bias` (B, H, T, K) on the scores.

        Under a PackedMask the one row of `query` and of each part holds examples, which attend each for itself.
        With `gated` the output is g · (that under `mask`) + (1 - g) · (that under the other mask). Returns (B, T, D).
        Source: Dec2Enc, Knowledge-Based Systems 309, 112907 (2025).
        """
        output = self._attend(query, parts, mask, bias)
        if gated is not None:
            output = torch.lerp(self._attend(query, parts, gated.mask, bias), output, gated.gate.to(output.dtype))
        output = adapted(self.o_proj, output.flatten(2), deltas.get("o_proj"))
        lost = self.config.attention_out_dropout if self.training else 0.0
        return F.dropout(output, lost) if lost else output

    def _attend(self, query: Tensor, parts: list[KeyValue], mask: Tensor | PackedMask, bias: Tensor | None) -> Tensor:
        """What the heads read, (B, T, H, E)."""
        attend_here = partial(
            attend,
            scale=self.config.scale,
            softcap=self.config.attention_softcap,
            dropout=self.config.attention_dropout if self.training else 0.0,
        )
        keys, values = [part.key for part in parts], [part.value for part in parts]
        if isinstance(mask, PackedMask):
            made = spread(query, mask.queries), _in_groups(keys, mask), _in_groups(values, mask)
            groups = zip(*made, mask.masks, mask.biases, strict=True)
            outputs = [attend_here(q, k, v, seen, bias=own, all_see=mask.all_see) for q, k, v, seen, own in groups]
            return joined(outputs, mask.queries)
        return attend_here(query, _side_by_side(keys), _side_by_side(values), mask, bias=bias).transpose(1, 2)

    def _normed(self, norm: str, x: Tensor) -> Tensor:
        if not self.config.qk_norm:
            return self._heads(x)
        normed: Tensor = getattr(self, norm)(x if self.config.qk_norm_over == "all" else self._heads(x))
        return self._heads(normed) if self.config.qk_norm_over == "all" else normed

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=2)


def _in_groups(parts: list[Tensor], mask: PackedMask) -> list[Tensor]:
    """Keys or values of each group of examples."""
    groups = zip(*(spread(part, where) for part, where in zip(parts, mask.keys, strict=True)), strict=True)
    return [_side_by_side(group) for group in groups]
