"""What a family is: a name of the ecosystem with its two tables. Families are values; no code asks for a name."""

from dataclasses import dataclass
from typing import Any

from graftlm.errors import ConversionError
from graftlm.families.config_map import ConfigMap, Values
from graftlm.families.weight_map import Rename, WeightMap


@dataclass(frozen=True)
class Family:
    """One architecture of the ecosystem; `name` is its model_type in transformers."""

    name: str
    config: ConfigMap
    weights: WeightMap


def causal_window(values: Values) -> Values:
    """A causal window of w tokens: the token itself and w - 1 before it."""
    size = values["sliding_window"]
    return {"window": None if size is None else (size - 1, 0)}


def window_size(ours: Values) -> dict[str, Any]:
    """Inverse of `causal_window`."""
    return {"sliding_window": None if ours["window"] is None else ours["window"][0] + 1}


def one_rotary_for_all(values: Values) -> Values:
    """The same rotary parameters for every type of layer that the stack has."""
    if values["rope_parameters"].get("partial_rotary_factor") not in (None, 1.0):
        raise ConversionError("rope_parameters.partial_rotary_factor (only heads that are rotated whole are known)")
    kinds = dict.fromkeys(values.get("layer_types") or ["full_attention"])
    return {"rotary": {kind: dict(values["rope_parameters"]) for kind in kinds}}


def shared_rotary(ours: Values) -> dict[str, Any]:
    """Inverse of `one_rotary_for_all`."""
    return {"rope_parameters": dict(next(iter(ours["rotary"].values())))}


EMBEDDINGS = (
    Rename("model.embed_tokens.weight", "decoder.embedding.weight"),
    Rename("model.norm.weight", "decoder.norm.weight"),
    Rename("lm_head.weight", "lm_head.weight"),
)


def layer(source: str, ours: str, *kinds: str) -> tuple[Rename, ...]:
    """Rules for the tensors of one module in every layer; `kinds` are weight, bias, …"""
    return tuple(
        Rename(f"model.layers.{{layer}}.{source}.{kind}", f"decoder.layers.{{layer}}.{ours}.{kind}")
        for kind in kinds or ("weight",)
    )


ATTENTION = tuple(
    rule
    for part in ("q_proj", "k_proj", "v_proj", "o_proj")
    for rule in layer(f"self_attn.{part}", f"attention.{part}", "weight", "bias")
)
MLP = tuple(
    rule
    for part in ("gate_proj", "up_proj", "down_proj")
    for rule in layer(f"mlp.{part}", f"mlp.{part}", "weight", "bias")
)
ROTARY_BUFFERS = ("model.layers.{layer}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")
"""Frequencies that old releases stored; they are computed from the config."""
