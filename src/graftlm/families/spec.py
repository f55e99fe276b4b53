"""What a family is: a name of the ecosystem with its two tables. Families are values; no code asks for a name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig

from graftlm.errors import ConversionError
from graftlm.families.config_map import ConfigMap, Rule, pinned, same
from graftlm.families.stock_config import Values, complete
from graftlm.families.weight_map import Place, TensorRule, WeightMap, rename
from graftlm.model.causal_lm import CausalLM
from graftlm.model.pretrained import GraftPreTrainedModel


@dataclass(frozen=True)
class Family:
    """One architecture of the ecosystem; `name` is its model_type in transformers."""

    name: str
    config: ConfigMap
    weights: WeightMap
    architecture: str
    """The class of transformers that it is written for."""
    model: type[GraftPreTrainedModel] = CausalLM
    """The class of ours that holds it: a CausalLM, an EncoderModel, or a whole encoder–decoder."""
    written_as: "Family | None" = None
    """The family that its models are written back as, where that is another."""

    def stock_config(self, config: PreTrainedConfig) -> dict[str, Any]:
        """transformers' config of one of ours. Raises: ConversionError that names what the family cannot express."""
        if self.written_as is not None:
            return self.written_as.stock_config(config)
        named = {"architectures": [self.architecture], "model_type": self.name}
        return named | self.config.write(config, lambda fields: complete(named | dict(fields)))

    def places(self, names: Iterable[str], config: PreTrainedConfig) -> list[Place]:
        """The source tensors that hold our tensors of these names, as the family writes them, each once."""
        found: dict[str, Place] = {}
        weights = self.weights.of(config)
        for name in names:
            place = weights.to_source(name)
            assert place is not None, name
            found.setdefault(place.source, place)
        return list(found.values())

    def stock_tensors(self, tensors: Mapping[str, Tensor], config: PreTrainedConfig) -> dict[str, Tensor]:
        """Our tensors as the source's, under its names."""
        if self.written_as is not None:
            return self.written_as.stock_tensors(tensors, config)
        return {
            place.source: place.rule.join([tensors[part] for part in place.ours], config)
            for place in self.places(tensors, config)
        }


def causal_window(values: Values) -> dict[str, Any]:
    """A causal window of w tokens: the token itself and w - 1 before it."""
    size = values["sliding_window"]
    return {"window": None if size is None else (size - 1, 0)}


def window_size(ours: Values) -> dict[str, Any]:
    """Inverse of `causal_window`."""
    return {"sliding_window": None if ours["window"] is None else ours["window"][0] + 1}


def one_kind_of_layer(values: Values) -> dict[str, Any]:
    """A window, where there is one, in every layer."""
    kind = "full_attention" if values.get("sliding_window") is None else "sliding_attention"
    return {"layer_types": (kind,) * values["num_hidden_layers"]}


def one_rotary_for_all(values: Values) -> Values:
    """The same rotary parameters, of heads rotated whole, for every type of layer that the stack has."""
    if values["rope_parameters"].get("partial_rotary_factor") not in (None, 1.0):
        raise ConversionError("rope_parameters.partial_rotary_factor (only heads that are rotated whole are known)")
    return partial_rotary_for_all(values)


def partial_rotary_for_all(values: Values) -> Values:
    """The same rotary parameters, maybe of a part of each head, for every type of layer that the stack has."""
    kinds = dict.fromkeys(values.get("layer_types") or one_kind_of_layer(values)["layer_types"])
    return {"rotary": {kind: dict(values["rope_parameters"]) for kind in kinds}}


def shared_rotary(ours: Values) -> dict[str, Any]:
    """Inverse of `one_rotary_for_all`."""
    return {"rope_parameters": dict(next(iter(ours["rotary"].values()), {}))}


LAYER_TYPES = Rule(
    ("layer_types",),
    lambda s: {"layer_types": tuple(s["layer_types"])},
    lambda o: {"layer_types": list(o["layer_types"])},
)
OF_CAUSAL_LMS = (
    same("initializer_range"),
    same("tie_word_embeddings"),
    same("pad_token_id"),
    same("bos_token_id"),
    same("eos_token_id"),
    pinned("is_encoder_decoder", False, "only decoder-only models of this family are known"),
)
"""Fields that decoder-only models have whatever their layers are."""
EQUAL_HEADS = Rule(
    ("num_attention_heads",),
    lambda s: {
        "num_heads": s["num_attention_heads"],
        "num_kv_heads": s["num_attention_heads"],
        "head_dim": s["hidden_size"] // s["num_attention_heads"],
    },
    lambda o: {"num_attention_heads": o["num_heads"]},
)
"""As many key and value heads as query heads, which share the width."""
WINDOW_EVERYWHERE = Rule(("sliding_window",), lambda s: causal_window(s) | one_kind_of_layer(s), window_size)
DERIVED_HEAD_DIM = Rule(
    ("head_dim",),
    lambda s: {"head_dim": s.get("head_dim") or s["hidden_size"] // s["num_attention_heads"]},
    lambda o: {"head_dim": o["head_dim"]},
)
EMBEDDINGS = (
    rename("model.embed_tokens.weight", "decoder.embedding.weight"),
    rename("model.norm.weight", "decoder.norm.weight"),
    rename("lm_head.weight", "lm_head.weight"),
)


def layer(
    source: str, ours: str, *kinds: str, of: str = "model.layers.{layer}", to: str = "decoder.layers.{layer}"
) -> tuple[TensorRule, ...]:
    """Rules for the tensors of one module in every layer; `kinds` are weight, bias, …"""
    return tuple(rename(f"{of}.{source}.{kind}", f"{to}.{ours}.{kind}") for kind in kinds or ("weight",))


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
QK_NORMS = tuple(rule for part in ("q_norm", "k_norm") for rule in layer(f"self_attn.{part}", f"attention.{part}"))
PRE_NORMS = (*layer("input_layernorm", "attention_norm"), *layer("post_attention_layernorm", "mlp_norm"))
ROTARY_BUFFERS = ("model.layers.{layer}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")
"""Frequencies that old releases stored; they are computed from the config."""
