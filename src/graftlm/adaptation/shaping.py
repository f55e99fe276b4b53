"""What a graft has of another shape than its donors: fewer layers, more key/value heads, other tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from graftlm.adaptation.layers import Layers
from graftlm.errors import ConfigError
from graftlm.model.config import BridgeConfig, GraftConfig, StackConfig
from graftlm.model.stack_config import one_of

SIDES = {"encoder": ("encoder",), "decoder": ("decoder",), "both": ("encoder", "decoder")}
"""Values of `expand_kv` -> the stacks that it is about."""


def shaped(
    config: GraftConfig,
    bridge: BridgeConfig,
    *,
    layers: Mapping[str, str | Iterable[int] | None],
    expand_kv: str | None,
    tables: Mapping[str, bool | None],
) -> tuple[GraftConfig, dict[str, Layers]]:
    """`config` in the shape that was asked for, and the layers that it takes by the side that leaves others out.

    `bridge` is the one that has to fit. `layers` are given for `encoder` and `decoder`; `expand_kv` names the sides of
    which each query head gets a copy of its key/value head (GQA becomes MHA, with the same function); `tables` are
    `share_embeddings` and `tie_word_embeddings`. None leaves a thing as it is.
    Raises: ConfigError for layers that there are not, and for a choice that is impossible or has no effect.
    """
    chosen = {side: given for side, given in layers.items() if given is not None}
    fields = {name: value for name, value in tables.items() if value is not None}
    sides = () if expand_kv is None else _sides(expand_kv)
    if config.share_layers:
        _check_shared(config, chosen, sides, fields)
    for name, value in fields.items():
        if getattr(config, name) == value:
            raise ConfigError(f"{name} is {str(value).lower()} already; leave it out.")
    kept: dict[str, Layers] = {}
    stacks: dict[str, StackConfig] = {side: getattr(config, side) for side in ("encoder", "decoder")}
    for side, given in chosen.items():
        kept[side] = Layers.of(given, stacks[side].num_layers, f"{side}_layers")
        stacks[side] = _picked(stacks[side], kept[side])
    for side in sides:
        stacks[side] = _expanded(stacks[side], side)
    if not chosen and not sides and not fields:
        return config, kept
    changed = {side: stack.to_dict() for side, stack in stacks.items()} | {"bridge": bridge.to_dict()}
    return GraftConfig.from_dict(config.to_dict() | changed | fields), kept


def _sides(expand_kv: str) -> tuple[str, ...]:
    one_of("expand_kv", expand_kv, tuple(SIDES))
    return SIDES[expand_kv]


def _check_shared(
    config: GraftConfig, chosen: Mapping[str, Any], sides: tuple[str, ...], fields: Mapping[str, bool]
) -> None:
    made = f"Recipe {config.recipe}" if config.recipe else "This graft"
    if chosen or "share_embeddings" in fields:
        raise ConfigError(
            f"{made} lets the encoder use the decoder's own layers and table, so it needs every layer and one table: "
            "leave out encoder_layers, decoder_layers and share_embeddings, or take recipe t5gemma or t5gemma2."
        )
    if len(sides) == 1:
        raise ConfigError(
            f"{made} lets the encoder use the decoder's own layers, so key/value heads are expanded in both or in "
            "neither; set expand_kv to both, or take recipe t5gemma or t5gemma2."
        )


def _picked(stack: StackConfig, layers: Layers) -> StackConfig:
    picked = stack.pick(layers.numbers)
    used = stack.rotary.keys() & set(picked.layer_types)
    return dataclasses.replace(picked, rotary={kind: stack.rotary[kind] for kind in stack.rotary if kind in used})


def _expanded(stack: StackConfig, side: str) -> StackConfig:
    if stack.num_kv_heads == stack.num_heads:
        raise ConfigError(
            f"Each of the {stack.num_heads} query heads of the {side} has a key/value head of its own already, so "
            "there is nothing to expand; leave it out of expand_kv."
        )
    return dataclasses.replace(stack, num_kv_heads=stack.num_heads)
