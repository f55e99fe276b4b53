"""How the weights of a bridge begin: named initialisations, each a pattern of weights over the encoder's states.

With weight p_i on state h_i, decoder layer j = 1 … M begins by reading m_j = Σ_i p_i h_i:

- `last`      1 on h_N. The paper's "original" (arXiv 2405.08570).
- `gca`       1 on h_{N+1-j}, or on the nearest state that is read. Granularity-consistent attention (2005.08081).
- `last+gca`  1 on h_N and SMALL on the state of `gca`: the function is kept to float error. `last+0.1gca` puts 0.1
              there, or any other number, and so gives some of the function up.
- `aligned`   1 on h_{j-1}.
- `uniform`   1/n on each of the n states that are read.
- `random`    no pattern: normal weights that keep the scale of what is read.

`linear` begins with p_i times the identity in block i, `scalar` with the logarithm of p_i. A linear map of a rank
begins as nothing beside the state that `bridge.add` adds. Further maps begin as zeros, norms as ones. Keys and values
of `joined` begin as those of the source on the last state that is read, and as nothing on the others.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Literal, get_args

import torch
from torch import Tensor

from graftlm.adaptation.recipe import without_last_layer
from graftlm.errors import ConfigError
from graftlm.model.bridge_config import BridgeConfig
from graftlm.model.config import GraftConfig, StackConfig
from graftlm.model.stack_config import one_of

Init = Literal["last", "gca", "last+gca", "aligned", "uniform", "random"]
INITS: tuple[str, ...] = get_args(Init)
OF_KIND: dict[str, tuple[str, ...]] = {
    "map": ("last", "gca", "aligned"),
    "scalar": INITS,
    "linear": INITS,
    "gated": ("uniform", "random"),
}
"""Initialisations that a kind can have; those of `map`, which has no weights, choose its order."""
PER_LAYER = ("gca", "last+gca", "aligned")
"""Those that give each decoder layer a memory of its own."""
BLEND = re.compile(r"last\+(\d*\.?\d+)gca")
"""`last+gca` with a weight that is given."""
SMALL = 1e-8
"""Weight beside 1 that fp32 rounds away."""
FAINT = 1e-12
"""What a softmax gives a state of weight 0, since it can give no 0. Hardly any gradient reaches it then."""


def bridged(
    config: GraftConfig, bridge: BridgeConfig, init: str | None, replaced: str | None = None
) -> tuple[GraftConfig, str | None]:
    """`config` with another bridge, and how that begins; `init` None keeps the function where the kind can.

    `replaced` is the kind of the source's own bridge, by default that of `config`. What the initialisation decides is
    filled in: the order of a `map`, and h_0 where `aligned` has to read it. A bridge `aligned` leaves out the last of
    as many encoder layers as the decoder has, with the final norm.
    Raises: ConfigError for an initialisation that the bridge cannot have.
    """
    old, encoder, decoder = parts(config)
    replaced = replaced or old.kind
    if replaced == "joined":
        raise ConfigError(
            "The keys and values of this decoder are made of joined states, so no other bridge fits it; "
            "begin with the model that it was made from."
        )
    if bridge.kind == "aligned" and encoder.num_layers == decoder.num_layers:
        encoder = without_last_layer(encoder)
    if init is None:
        init = _default(bridge, replaced)
    else:
        _check_kind(bridge, init)
    bridge = _filled(bridge, init, encoder.num_layers, decoder.num_layers)
    made = GraftConfig.from_dict(config.to_dict() | {"bridge": bridge.to_dict(), "encoder": encoder.to_dict()})
    if init is not None and bridge.kind != "map" and bridge.rank is None:
        _check_states(bridge, init, encoder.num_layers, decoder.num_layers)
    return made, init


def blended(init: str) -> tuple[str, float]:
    """The initialisation, and the weight beside 1 that `last+gca` has.

    >>> blended("last+0.1gca"), blended("gca")
    (('last+gca', 0.1), ('gca', 1e-08))
    """
    found = BLEND.fullmatch(init)
    return ("last+gca", float(found[1])) if found else (init, SMALL)


def _default(bridge: BridgeConfig, replaced: str) -> str | None:
    if bridge.kind == "linear" and bridge.rank is not None:
        return bridge.add or "random"
    if bridge.kind == "linear":
        return "aligned" if replaced == "aligned" and not bridge.shared else "last"
    return {"map": None if bridge.order else "gca", "scalar": "uniform", "gated": "uniform"}.get(bridge.kind)


def _check_kind(bridge: BridgeConfig, init: str) -> None:
    scheme, _ = blended(init)
    one_of("bridge_init", scheme, INITS)
    if bridge.kind not in OF_KIND:
        raise ConfigError(f"Bridge {bridge.kind} has no weights to initialise; leave out its initialisation.")
    if bridge.order:
        raise ConfigError("Give either the order of a bridge map or its initialisation, which is an order too.")
    possible, what = OF_KIND[bridge.kind], f"Bridge {bridge.kind}"
    if bridge.rank is not None:
        possible, what = ("random", *((bridge.add,) if bridge.add else ())), "A linear bridge of a rank"
    if scheme not in possible:
        hint = f"; set bridge.add to {init} for it" if bridge.rank and init in ("last", "aligned") else ""
        raise ConfigError(f"{what} cannot begin as {init!r}, only as {' or '.join(possible)}{hint}.")
    if bridge.one_memory and scheme in PER_LAYER:
        raise ConfigError(f"Initialisation {init!r} gives each decoder layer its own memory; leave out bridge.shared.")


def _filled(bridge: BridgeConfig, init: str | None, layers: int, decoder_layers: int) -> BridgeConfig:
    if bridge.kind == "map" and init is not None:
        matched = [_matched(init, layer, layers) for layer in range(1, decoder_layers + 1)]
        return dataclasses.replace(bridge, order=tuple(matched if init == "aligned" else (max(1, i) for i in matched)))
    fixed = bridge.states is not None or bridge.include_embedding is not None or bridge.rank is not None
    if bridge.kind == "linear" and init == "aligned" and not fixed:
        return dataclasses.replace(bridge, include_embedding=True)
    return bridge


def _check_states(bridge: BridgeConfig, init: str, layers: int, decoder_layers: int) -> None:
    scheme, _ = blended(init)
    wanted = {"last": {layers}, "last+gca": {layers}, "aligned": set(range(decoder_layers))}.get(scheme, set())
    missing = sorted(wanted - set(bridge.reads(layers)))
    if missing:
        raise ConfigError(
            f"Initialisation {init!r} needs state {missing[0]} of the encoder, which this bridge does not read; "
            "choose another, or other states."
        )


def beginning(name: str, config: GraftConfig, init: str | None) -> str:
    """How the tensor `bridge.…` begins: the initialisation itself, or `random`, `zeros` or `ones`."""
    bridge, _, decoder = parts(config)
    if name.startswith("bridge.norm."):
        return "zeros" if name.endswith("bias") or decoder.norm_unit_offset else "ones"
    if ".further." in name:
        return "zeros"
    if name == "bridge.projection.weight" or name.endswith(".down.weight"):
        return "random"
    assert init is not None, name
    return "zeros" if bridge.rank is not None and init == bridge.add else init


def initial_values(
    name: str, shape: tuple[int, ...], init: str, config: GraftConfig, generator: torch.Generator
) -> Tensor:
    """Initial values, in fp32, of the tensor `bridge.…` that begins as `init`."""
    bridge, encoder, _ = parts(config)
    layers = encoder.num_layers
    single = bridge.kind in ("scalar", "gated") and name == "bridge.weight"
    if init == "random":
        std = 1.0 if single else 1 / math.sqrt(shape[-1])
        return torch.empty(shape).normal_(std=std, generator=generator)
    reads = bridge.reads(layers)
    if bridge.kind == "gated":
        return torch.zeros(shape)
    if single:
        rows = [_pattern(init, layer + 1, layers, reads) for layer in range(shape[0])]
        return torch.tensor(rows).clamp(min=FAINT).log()
    layer, width = int(name.split(".")[2]) + 1, shape[0]
    inside = shape[1] // len(reads)
    # Between two widths no map is the identity; one that keeps the scale takes its place.
    unit = torch.eye(width) if inside == width else torch.empty(width, inside).normal_(generator=generator)
    unit = unit if inside == width else unit / math.sqrt(inside)
    return torch.cat([weight * unit for weight in _pattern(init, layer, layers, reads)], dim=1)


def _pattern(init: str, layer: int, layers: int, reads: tuple[int, ...]) -> list[float]:
    """Weight of each state that is read, for decoder layer `layer` = 1 … M."""
    if init == "uniform":
        return [1 / len(reads)] * len(reads)
    scheme, small = blended(init)
    weights = dict.fromkeys(reads, 0.0)
    if scheme == "last+gca":
        weights[_nearest(_matched("gca", layer, layers), reads)] = small
    weights[_nearest(_matched("last" if scheme == "last+gca" else scheme, layer, layers), reads)] = 1.0
    return list(weights.values())


def _matched(init: str, layer: int, layers: int) -> int:
    """The state that decoder layer `layer` = 1 … M reads of an encoder of `layers` layers; it may not exist."""
    return {"last": layers, "gca": layers + 1 - layer, "aligned": layer - 1}[init]


def _nearest(state: int, reads: tuple[int, ...]) -> int:
    return min(reads, key=lambda read: abs(read - state))


def parts(config: GraftConfig) -> tuple[BridgeConfig, StackConfig, StackConfig]:
    """Bridge, encoder and decoder."""
    assert isinstance(config.bridge, BridgeConfig)
    assert isinstance(config.encoder, StackConfig)
    assert isinstance(config.decoder, StackConfig)
    return config.bridge, config.encoder, config.decoder
