"""Rotary position embedding, with a set of frequencies per layer type and every scaling of transformers."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from graftlm.errors import ConfigError
from graftlm.model.config import StackConfig

BY_LENGTH = ("dynamic", "longrope")
"""Scalings whose frequencies depend on the length of the sequence."""


class RotaryTable(NamedTuple):
    """Cosines and sines of one set of positions; each (B, 1, T, R), R the part of a head that is rotated."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate the first R of each head by position. Shapes: (B, H, T, E) -> the same."""
        rotated = self.cos.shape[-1]
        rest = x[..., rotated:]
        x = x[..., :rotated]
        if x.dtype == self.cos.dtype == torch.float32:
            x = _Rotate.apply(x, self.cos, self.sin)
        else:
            first, second = x.chunk(2, dim=-1)
            x = (x * self.cos + torch.cat((-second, first), dim=-1) * self.sin).to(rest.dtype)
        return torch.cat((x, rest), dim=-1) if rest.shape[-1] else x


class _Rotate(torch.autograd.Function):
    """The same, whose derivative is the rotation back; autograd alone would keep and add up every part of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    y, half = x * cos, x.shape[-1] // 2
    y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-way)
    y[..., half:].addcmul_(x[..., :half], sin[..., half:], value=way)
    return y


class Rotary(nn.Module):
    """Frequencies of one stack, by layer type; a type without an entry in `config.rotary` has no rotary positions.

    Source: arXiv 2104.09864; scalings as in transformers, modeling_rope_utils.py.
    """

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self._frequencies: dict[tuple[str, torch.device, int], tuple[Tensor, float]] = {}
        for parameters in config.rotary.values():
            kind = parameters.get("rope_type", "default")
            if kind not in ("default", *ROPE_INIT_FUNCTIONS):
                raise ConfigError(f"Unknown rope_type {kind!r}; known are default, {', '.join(ROPE_INIT_FUNCTIONS)}.")

    def forward(self, positions: Tensor, dtype: torch.dtype, length: int | None = None) -> dict[str, RotaryTable]:
        """Tables for positions (B, T), by layer type.

        `length` is the number of tokens that scalings by length go by; by default the largest position plus one.
        """
        tables = {}
        dtype = torch.float32 if self.config.rotary_in_fp32 else dtype
        for layer_type, parameters in self.config.rotary.items():
            by_length = parameters.get("rope_type", "default") in BY_LENGTH
            reach = (int(positions.max()) + 1 if length is None else length) if by_length else 0
            frequencies, factor = self.frequencies(layer_type, parameters, positions.device, reach)
            angles = positions[..., None].float() * frequencies
            angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
            tables[layer_type] = RotaryTable((angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype))
        return tables

    def frequencies(
        self, layer_type: str, parameters: Mapping[str, Any], device: torch.device, length: int
    ) -> tuple[Tensor, float]:
        """Inverse frequencies (R/2) in fp32 and the factor on the tables."""
        key = (layer_type, device, length)
        if key not in self._frequencies:
            # Only lengths make new keys; one entry per layer type keeps long generations from piling them up.
            self._frequencies = {k: v for k, v in self._frequencies.items() if k[0] != layer_type}
            self._frequencies[key] = self._compute(parameters, device, length)
        return self._frequencies[key]

    def _compute(self, parameters: Mapping[str, Any], device: torch.device, length: int) -> tuple[Tensor, float]:
        head_dim = self.config.head_dim
        rotated = int(head_dim * (parameters.get("partial_rotary_factor") or 1.0))
        kind = parameters.get("rope_type", "default")
        if kind == "default":
            exponents = torch.arange(0, rotated, 2, dtype=torch.float, device=device) / rotated
            return 1.0 / parameters["rope_theta"] ** exponents, 1.0
        view = SimpleNamespace(
            rope_parameters=dict(parameters),
            head_dim=head_dim,
            hidden_size=self.config.hidden_size,
            num_attention_heads=self.config.num_heads,
            max_position_embeddings=self.config.max_position_embeddings,
            standardize_rope_params=lambda: None,
        )
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](view, device, seq_len=length or None)  # type: ignore[arg-type]
        return frequencies.float(), float(factor)
