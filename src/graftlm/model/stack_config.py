"""One stack of layers as data: whatever a family of language models has of its own is a field here.

Letters used for shapes everywhere: B batch, S source, T target, K keys, D width, H query heads, G key/value heads,
E head width, V vocabulary, L layers.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from graftlm.errors import ConfigError, meant

LayerType = Literal["full_attention", "sliding_attention"]

MOST_LAYERS = 10_000
"""More than any model has; a config that asks for more is refused before lists of that length are made."""

LARGEST = 10**9
"""No size, length or count of a model is beyond it."""

C = TypeVar("C")


def strict(kind: type[C], values: Mapping[str, Any]) -> C:
    """Build a dataclass from a mapping; an unknown or missing key is an error that names it."""
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise no_field(kind, key)
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{kind.__name__} is incomplete: {error}.") from error


def no_field(kind: type, key: str) -> ConfigError:
    """The error for a key that is no field, with the closest one."""
    known = [f.name for f in dataclasses.fields(kind)]
    hint = meant(key, known, f"known are {', '.join(known)}.")
    return ConfigError(f"{kind.__name__} has no field {key!r}; {hint}")


def one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ConfigError for a value that is not among the choices."""
    if not isinstance(value, Hashable) or value not in choices:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(repr(c) for c in choices)}.")


def check_numbers(config: object) -> None:
    """Whole numbers are not negative, other numbers finite, switches true or false. Raises: ConfigError."""
    for name, hint in get_type_hints(type(config)).items():
        value: Any = getattr(config, name, None)
        optional = type(None) in get_args(hint)
        kinds = {kind for kind in (get_args(hint) if optional else (hint,)) if kind in (bool, int, float)}
        if not kinds or (optional and value is None):
            continue
        kind = kinds.pop()
        fits = isinstance(value, bool) if kind is bool else isinstance(value, int) and not isinstance(value, bool)
        if kind is float:
            fits = (fits or isinstance(value, float)) and abs(value) <= sys.float_info.max
        if not fits or (kind is int and not 0 <= value <= LARGEST):
            wanted = {bool: "true or false", int: f"a whole number up to {LARGEST}", float: "a finite number"}[kind]
            raise ConfigError(f"{type(config).__name__}: {name} is {value!r}; it must be {wanted}.")


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """A mixture of experts in the place of some layers' feed-forward part."""

    number: int
    per_token: int
    """Experts that each token goes through."""
    size: int
    """Inner width of one expert."""
    normalised: bool
    """The weights of a token's experts are scaled to sum to 1."""
    layers: tuple[int, ...]
    """Layers that have experts; the others are dense."""
    fp32_weights: bool = False
    """The weights are applied in fp32, instead of rounded to the working dtype first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        check_numbers(self)
        if not 0 < self.per_token <= self.number:
            raise ConfigError(f"experts.per_token is {self.per_token}; it must be 1 to {self.number}.")


@dataclass(frozen=True, kw_only=True)
class RelativeBiasConfig:
    """A learned bias on attention scores by bucketed distance, one table for all layers of a stack."""

    buckets: int
    max_distance: int
    """Distances from here on share the last bucket."""
    bidirectional: bool
    """Keys before and after a query have buckets of their own."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 < self.exact < self.max_distance:
            raise ConfigError(
                f"relative_bias has {self.buckets} buckets for distances up to {self.max_distance}; give at least "
                f"{4 if self.bidirectional else 2}, and a max_distance above {self.exact}."
            )

    @property
    def exact(self) -> int:
        """Distances that have a bucket of their own, on each side."""
        return self.buckets // (4 if self.bidirectional else 2)


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """One stack of transformer layers, as values only; families differ in these and in nothing else."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    """LARGEST where nothing limits the positions."""
    activation: str = "silu"
    """Name of the feed-forward activation in transformers' ACT2FN."""
    mlp_gated: bool = True
    """The feed-forward part is down(act(gate(x)) · up(x)), else down(act(up(x)))."""
    mlp_bias: bool = False
    experts: ExpertsConfig | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    norm_kind: Literal["rms", "layer"] = "rms"
    norm_bias: bool = False
    """Layer norms have a bias."""
    norm_eps: float = 1e-6
    norm_unit_offset: bool = False
    """The norm multiplies by 1 + weight, in fp32 (Gemma), instead of by weight after the cast (Llama)."""
    norm_in_fp32: bool = False
    """It multiplies by weight before the cast too (OLMo 2)."""
    norm_placement: Literal["pre", "sandwich", "output", "post"] = "pre"
    """`pre`: a norm before each sub-layer; `output`: one on its output, before the residual sum; `sandwich`: both;
    `post`: one after the residual sum."""
    first_attention_norm: bool = True
    """The first layer has a norm before its attention too (ModernBERT has none)."""
    final_norm: bool = True
    parallel_residual: bool = False
    """The feed-forward part reads the layer's input instead of what attention left."""
    qk_norm: bool = False
    """A norm of queries and keys, before rotary."""
    qk_norm_over: Literal["head", "all"] = "head"
    """It normalises each head for itself, or all heads together."""
    query_scale: float | None = None
    """Factor on q·k; None means head_dim ** -0.5."""
    attention_softcap: float | None = None
    """c in c·tanh(score / c), before the mask."""
    relative_bias: RelativeBiasConfig | None = None
    logit_scale: float = 1.0
    """Factor on the state that the output head reads."""
    logit_bias: bool = False
    """The output head has a bias."""
    logit_softcap: float | None = None
    """As attention_softcap, on the output logits."""
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    attention_out_dropout: float = 0.0
    """Of what attention gives, before residual_dropout."""
    activation_dropout: float = 0.0
    """Of the inner feed-forward activations."""
    residual_dropout: float = 0.0
    """Of what each sub-layer adds."""
    output_dropout: float = 0.0
    """Of the normed output."""
    embedding_scale: float = 1.0
    embedding_norm: bool = False
    """A norm of the embedded tokens, before the first layer."""
    token_types: int = 0
    """Rows of a table of segments; every token gets row 0."""
    absolute_positions: Literal["learned", "sinusoidal"] | None = None
    """Positions that are added to the embedded tokens."""
    position_offset: int = 0
    """Rows of the learned table before that of position 0."""
    layer_types: tuple[LayerType, ...] = ()
    """One per layer; empty means full attention everywhere."""
    window: tuple[int, int] | None = None
    """(back, ahead): sliding layers see keys with -ahead <= query position - key position <= back."""
    rotary: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Layer type -> rotary parameters as transformers 5 writes them (rope_type, …); no entry, no rotary."""
    rotary_in_fp32: bool = False
    """Queries and keys are rotated in fp32 and rounded after it, instead of by rounded sines and cosines."""
    unrotated_layers: tuple[int, ...] = ()
    """Layers without rotary, whatever their type has."""
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in ("vocab_size", "hidden_size", "num_heads", "num_kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        types = tuple(self.layer_types) or ("full_attention",) * min(self.num_layers, MOST_LAYERS)
        object.__setattr__(self, "layer_types", types)
        object.__setattr__(self, "window", tuple(self.window) if self.window is not None else None)
        object.__setattr__(self, "unrotated_layers", tuple(self.unrotated_layers))
        for name, kind in (("experts", ExpertsConfig), ("relative_bias", RelativeBiasConfig)):
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, strict(kind, getattr(self, name)))
        one_of("norm_kind", self.norm_kind, ("rms", "layer"))
        one_of("norm_placement", self.norm_placement, ("pre", "sandwich", "output", "post"))
        one_of("qk_norm_over", self.qk_norm_over, ("head", "all"))
        one_of("absolute_positions", self.absolute_positions, ("learned", "sinusoidal", None))
        for layer_type in types:
            one_of("layer_types", layer_type, ("full_attention", "sliding_attention"))
        if len(types) != self.num_layers:
            raise ConfigError(f"layer_types has {len(types)} entries for {self.num_layers} layers; give one per layer.")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}.")
        if "sliding_attention" in types and self.window is None:
            raise ConfigError("layer_types has sliding_attention but window is not set; give (back, ahead).")
        if self.norm_kind == "layer" and self.norm_unit_offset:
            raise ConfigError("norm_unit_offset belongs to norm_kind rms; leave it out.")
        if self.parallel_residual and self.norm_placement != "pre":
            raise ConfigError("parallel_residual needs norm_placement pre.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StackConfig:
        """Inverse of `to_dict`. Raises: ConfigError on an unknown or missing field."""
        return strict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field."""
        return dataclasses.asdict(self)

    @property
    def scale(self) -> float:
        """Factor on q·k."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale

    def first(self, layers: int) -> StackConfig:
        """The same stack, of its first layers only."""
        return self.pick(range(min(layers, self.num_layers)))

    def pick(self, layers: Sequence[int]) -> StackConfig:
        """The same stack, of these of its layers only, in rising order; what a layer has of its own goes with it."""
        places = {layer: place for place, layer in enumerate(layers)}
        experts = self.experts
        if experts is not None:
            experts = dataclasses.replace(experts, layers=tuple(places[i] for i in experts.layers if i in places))
        return dataclasses.replace(
            self,
            num_layers=len(places),
            layer_types=tuple(self.layer_types[layer] for layer in layers),
            unrotated_layers=tuple(places[i] for i in self.unrotated_layers if i in places),
            experts=experts,
            first_attention_norm=self.first_attention_norm or (bool(places) and 0 not in places),
        )

    def bidirectional(self, window: Literal["doubled", "split"] = "doubled") -> StackConfig:
        """The same stack for an encoder that sees both sides.

        A causal window of w tokens becomes w back and w ahead, or is split into about half before and half after.
        Source: T5Gemma's and T5Gemma 2's encoders (transformers, masking_utils.py and models/t5gemma2).
        """
        if self.window is None:
            return self
        size = self.window[0] + 1
        return dataclasses.replace(
            self, window=(size, size) if window == "doubled" else ((size + 1) // 2 - 1, size // 2)
        )
