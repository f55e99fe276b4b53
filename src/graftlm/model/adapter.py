"""Adapters: tiny parts beside the linear maps of a stack, for all rows of a batch or each for its own rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from graftlm.errors import ConfigError

AdapterKind = Literal["bias", "ia3", "lora"]
KINDS: tuple[AdapterKind, ...] = ("bias", "ia3", "lora")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What stands beside which linear maps."""

    kind: AdapterKind
    rank: int | None = None
    """Of LoRA only."""
    alpha: float | None = None
    """Of LoRA only: its product is scaled by alpha / rank; None means twice the rank."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"adapter kind is {self.kind!r}; it must be one of {', '.join(KINDS)}.")
        if self.kind != "lora":
            if self.rank is not None or self.alpha is not None:
                raise ConfigError(f"rank and alpha belong to lora; leave them out for {self.kind}.")
            return
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ConfigError(f"The rank of lora is {self.rank!r}; it must be a whole number of at least 1.")
        if self.alpha is None:
            object.__setattr__(self, "alpha", 2.0 * self.rank)

    @property
    def scale(self) -> float:
        """Factor on LoRA's product."""
        assert self.rank is not None
        assert self.alpha is not None
        return self.alpha / self.rank


class Delta(nn.Module):
    """What an adapter does to one linear map: something to its input, something to its output, or both."""

    def before(self, x: Tensor) -> Tensor:
        """The map's input, (…, D_in); the same tensor where it stays as it is."""
        return x

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        """The map's output, (…, D_out), given its input."""
        return y


class Bias(Delta):
    """y + b. Source: BitFit, arXiv 2106.10199; here with a bias also where the map has none."""

    def __init__(self, config: AdapterConfig, name: str, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = nn.Parameter(linear.weight.new_zeros(linear.out_features))

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        return y + self.bias


class IA3(Delta):
    """Keys, values and the inner activations of the feed-forward layer, each times a vector.

    Source: arXiv 2205.05638, section 3.3. The parameter has the name and shape that PEFT gives it.
    """

    INNER = "down_proj"

    def __init__(self, config: AdapterConfig, name: str, linear: nn.Linear) -> None:
        super().__init__()
        self.of_input = name == self.INNER
        shape = (1, linear.in_features) if self.of_input else (linear.out_features, 1)
        self.ia3_l = nn.Parameter(linear.weight.new_ones(shape))

    def before(self, x: Tensor) -> Tensor:
        return x * self.ia3_l.flatten() if self.of_input else x

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        return y if self.of_input else y * self.ia3_l.flatten()


class LoRA(Delta):
    """y + alpha / rank · B A x; B begins at zero. Source: arXiv 2106.09685, section 4.1."""

    def __init__(self, config: AdapterConfig, name: str, linear: nn.Linear) -> None:
        super().__init__()
        assert config.rank is not None
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.scale = config.scale
        self.lora_A = nn.Linear(linear.in_features, config.rank, bias=False, **like)
        self.lora_B = nn.Linear(config.rank, linear.out_features, bias=False, **like)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        return y + self.scale * cast(Tensor, self.lora_B(self.lora_A(x)))


DELTAS: dict[AdapterKind, type[Bias] | type[IA3] | type[LoRA]] = {"bias": Bias, "ia3": IA3, "lora": LoRA}
TARGETS: dict[AdapterKind, tuple[str, ...]] = {
    "bias": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "ia3": ("k_proj", "v_proj", IA3.INNER),
    "lora": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
"""The linear maps that each kind stands beside, in every sub-layer that has them."""


class Adapter(nn.Module):
    """The deltas of every layer of a stack: layers.{i}.{sub-layer}.{linear map}. At first it changes nothing."""

    def __init__(self, config: AdapterConfig, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(nn.ModuleDict(_of_layer(config, layer)) for layer in layers)

    @torch.no_grad()
    def merge(self, layers: Iterable[nn.Module]) -> None:
        """Give the layers that it stands beside new weights, with LoRA's products added."""
        for layer, deltas in zip(layers, self.layers, strict=True):
            for name, delta in deltas.named_modules():
                if isinstance(delta, LoRA):
                    linear = cast(nn.Linear, layer.get_submodule(name))
                    product = delta.scale * delta.lora_B.weight.float() @ delta.lora_A.weight.float()
                    # The old weight may be another task encoder's too.
                    merged = linear.weight + product.to(linear.weight.dtype)
                    linear.weight = nn.Parameter(merged, requires_grad=linear.weight.requires_grad)


class RowDelta(NamedTuple):
    """A delta and the rows of the batch that it is for; None is all of them."""

    delta: Delta
    rows: Tensor | None


LinearDeltas = Mapping[str, Sequence[RowDelta]]
"""Linear map of a sub-layer -> its deltas."""
LayerDeltas = Mapping[str, LinearDeltas]
"""Sub-layer of a layer -> the deltas of its linear maps."""
EMPTY: Mapping[str, Any] = {}
"""No deltas, of a sub-layer or of a layer."""


@dataclass(frozen=True)
class RowAdapters:
    """Which adapter each row of a batch is decoded with: `adapters[rows[b]]`, None for none.

    `rows` is (B,), or None where one adapter serves all rows.
    """

    adapters: tuple[Adapter | None, ...] = ()
    rows: Tensor | None = None

    def layers(self, number: int) -> list[LayerDeltas]:
        """Deltas by layer, sub-layer and linear map, for a stack of `number` layers."""
        alone = len(self.adapters) == 1 or self.rows is None
        chosen = [
            (adapter, None if alone or self.rows is None else (self.rows == i).nonzero().flatten())
            for i, adapter in enumerate(self.adapters)
            if adapter is not None
        ]
        return [_collect([(adapter.layers[i], rows) for adapter, rows in chosen]) for i in range(number)]


def adapted(linear: nn.Module, x: Tensor, deltas: Sequence[RowDelta] | None) -> Tensor:
    """A linear map with the deltas of its rows. Shapes: (B, …, D_in) -> (B, …, D_out)."""
    for delta, rows in deltas or ():
        part = x if rows is None else x[rows]
        changed = delta.before(part)
        if changed is not part:
            # Under autocast a delta may come in another dtype than the map's input or output.
            x = changed if rows is None else x.index_copy(0, rows, changed.to(x.dtype))
    y: Tensor = linear(x)
    for delta, rows in deltas or ():
        y = delta.after(x, y) if rows is None else y.index_copy(0, rows, delta.after(x[rows], y[rows]).to(y.dtype))
    return y


def targets(kind: AdapterKind, layer: nn.Module) -> dict[str, dict[str, nn.Linear]]:
    """The linear maps that an adapter stands beside, by sub-layer of one layer and name."""
    found = {
        name: {
            inner: linear
            for inner, linear in part.named_children()
            if isinstance(linear, nn.Linear) and inner in TARGETS[kind]
        }
        for name, part in layer.named_children()
    }
    return {name: linears for name, linears in found.items() if linears}


def _of_layer(config: AdapterConfig, layer: nn.Module) -> dict[str, nn.Module]:
    make = DELTAS[config.kind]
    return {
        name: nn.ModuleDict({inner: make(config, inner, linear) for inner, linear in linears.items()})
        for name, linears in targets(config.kind, layer).items()
    }


def _collect(layers: Sequence[tuple[nn.Module, Tensor | None]]) -> LayerDeltas:
    found: dict[str, dict[str, list[RowDelta]]] = {}
    for layer, rows in layers:
        for part, linears in cast(nn.ModuleDict, layer).items():
            for name, delta in cast(nn.ModuleDict, linears).items():
                found.setdefault(part, {}).setdefault(name, []).append(RowDelta(cast(Delta, delta), rows))
    return found
