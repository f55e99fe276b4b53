"""The whole architecture as data: two stacks, the bridge between them, and how they are joined.

Letters used for shapes everywhere: B batch, S source, T target, K keys, D width, H query heads, G key/value heads,
E head width, V vocabulary, L layers.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from transformers import PreTrainedConfig

from graftlm.errors import ConfigError

LayerType = Literal["full_attention", "sliding_attention"]

C = TypeVar("C")


def _strict(kind: type[C], values: Mapping[str, Any]) -> C:
    """Build a dataclass from a mapping; an unknown or missing key is an error that names it."""
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise _no_field(kind, key)
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{kind.__name__} is incomplete: {error}.") from error


def _no_field(kind: type, key: str) -> ConfigError:
    known = [f.name for f in dataclasses.fields(kind)]
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return ConfigError(f"{kind.__name__} has no field {key!r}{hint}")


def _one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(repr(c) for c in choices)}.")


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
    activation: str = "silu"
    """Name of the gate's activation in transformers' ACT2FN."""
    mlp_bias: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    norm_eps: float = 1e-6
    norm_unit_offset: bool = False
    """The norm multiplies by 1 + weight, in fp32 (Gemma), instead of by weight after the cast (Llama)."""
    norm_placement: Literal["pre", "sandwich"] = "pre"
    """`pre`: a norm before each sub-layer; `sandwich`: also one on its output, before the residual sum."""
    final_norm: bool = True
    qk_norm: bool = False
    """RMSNorm over each query and key head, before rotary."""
    query_scale: float | None = None
    """Factor on q·k; None means head_dim ** -0.5."""
    attention_softcap: float | None = None
    """c in c·tanh(score / c), before the mask."""
    logit_softcap: float | None = None
    """The same on the output logits."""
    attention_dropout: float = 0.0
    embedding_scale: float = 1.0
    layer_types: tuple[LayerType, ...] = ()
    """One per layer; empty means full attention everywhere."""
    window: tuple[int, int] | None = None
    """(back, ahead): sliding layers see keys with -ahead <= query position - key position <= back."""
    rotary: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Layer type -> rotary parameters as transformers 5 writes them (rope_type, …); no entry, no rotary."""
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        types = tuple(self.layer_types) or ("full_attention",) * self.num_layers
        object.__setattr__(self, "layer_types", types)
        object.__setattr__(self, "window", tuple(self.window) if self.window is not None else None)
        _one_of("norm_placement", self.norm_placement, ("pre", "sandwich"))
        for layer_type in types:
            _one_of("layer_types", layer_type, ("full_attention", "sliding_attention"))
        if len(types) != self.num_layers:
            raise ConfigError(f"layer_types has {len(types)} entries for {self.num_layers} layers; give one per layer.")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}.")
        if "sliding_attention" in types and self.window is None:
            raise ConfigError("layer_types has sliding_attention but window is not set; give (back, ahead).")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StackConfig:
        """Inverse of `to_dict`. Raises: ConfigError on an unknown or missing field."""
        return _strict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field."""
        return dataclasses.asdict(self)

    @property
    def scale(self) -> float:
        """Factor on q·k."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale

    def bidirectional(self) -> StackConfig:
        """The same stack for an encoder that sees both sides: a causal window of w tokens becomes w back and w ahead.

        Source: T5Gemma's encoder (transformers, masking_utils.py, sliding_window_bidirectional_overlay).
        """
        if self.window is None:
            return self
        size = self.window[0] + 1
        return dataclasses.replace(self, window=(size, size))


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """What each decoder layer reads of the encoder's states h_0 … h_N."""

    kind: Literal["last", "aligned"] = "last"
    """`last`: the normed output of the encoder; `aligned`: decoder layer j reads the raw state h_{j-1}."""

    def __post_init__(self) -> None:
        _one_of("bridge.kind", self.kind, ("last", "aligned"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BridgeConfig:
        """Inverse of `to_dict`. Raises: ConfigError on an unknown field."""
        return _strict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field."""
        return dataclasses.asdict(self)


_NESTED: dict[str, type[StackConfig] | type[BridgeConfig]] = {
    "encoder": StackConfig,
    "decoder": StackConfig,
    "bridge": BridgeConfig,
}


_BOOKKEEPING = (
    "use_cache",
    "model_type",
    "attn_implementation",
    "experts_implementation",
    "torch_dtype",
    "name_or_path",
    "output_attentions",
)
"""Keys that transformers itself passes to every config beside its fields."""


class _StackedConfig(PreTrainedConfig):
    """Parts that every graftlm config shares: nested strict dataclasses inside a transformers config."""

    def __post_init__(self, **kwargs: Any) -> None:
        for key in kwargs:
            if key not in _BOOKKEEPING and not key.startswith("_"):
                raise _no_field(type(self), key)
        for name, kind in _NESTED.items():
            value = getattr(self, name, None)
            if isinstance(value, Mapping):
                setattr(self, name, kind.from_dict(value))
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, nested configs included."""
        output = super().to_dict()
        for name in _NESTED:
            value = getattr(self, name, None)
            if value is not None:
                output[name] = value.to_dict()
        return output

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """This config: transformers reads the decoder's sizes from the properties below."""
        return self

    def validate_layer_type(self) -> None:
        """Layer types are checked by StackConfig."""

    @property
    def _stack(self) -> StackConfig:
        decoder: StackConfig = self.decoder
        return decoder

    @property
    def vocab_size(self) -> int:
        """Rows of the decoder's table."""
        return self._stack.vocab_size

    @property
    def hidden_size(self) -> int:
        """Width of the decoder."""
        return self._stack.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the decoder."""
        return self._stack.num_layers

    @property
    def num_attention_heads(self) -> int:
        """Query heads of the decoder."""
        return self._stack.num_heads

    @property
    def max_position_embeddings(self) -> int:
        """Positions that the decoder was made for."""
        return self._stack.max_position_embeddings

    @property
    def initializer_range(self) -> float:
        """Standard deviation of fresh weights."""
        return self._stack.initializer_range


class CausalLMConfig(_StackedConfig):
    """A decoder without memory: the donor, and the teacher in distillation."""

    model_type: ClassVar[str] = "graft_causal_lm"

    decoder: StackConfig | dict[str, Any] | None = None
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


class GraftConfig(_StackedConfig):
    """Encoder, bridge, decoder, and how the decoder reads the memory.

    Raises: ConfigError for a value outside its choices or for settings that contradict each other.
    """

    model_type: ClassVar[str] = "graft"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    encoder: StackConfig | dict[str, Any] | None = None
    decoder: StackConfig | dict[str, Any] | None = None
    bridge: BridgeConfig | dict[str, Any] | None = None
    recipe: str | None = None
    """Name of the recipe that made the model."""
    cross_mode: str = "merged"
    """`merged`: one attention over [memory; target]; `separate`: a cross-attention sub-layer of its own."""
    encoder_attention: str = "causal"
    """`causal` or `bidirectional`."""
    memory_norm: str = "layer_input"
    """`layer_input`: memory passes the decoder layer's input norm (merged only); `none`: it is read as it is."""
    memory_rotary: bool = True
    """Rotary positions on the memory's keys."""
    memory_window: str = "by_position"
    """`by_position`: sliding layers see the memory within their window (merged only); `none`: all of it."""
    positions: str = "continued"
    """`continued`: target positions follow the source's; `restarted`: they begin at 0."""
    decoder_start: str = "last_source_token"
    """First decoder input: `last_source_token` (then left out of the memory) or `bos`."""
    share_embeddings: bool = True
    """The encoder reads the decoder's embedding table instead of one of its own."""
    share_layers: bool = False
    """The encoder's layers use the decoder's weights, held and stored once, instead of some of their own."""
    source_tokenizer: bool = False
    """The source has a tokenizer of its own, in the folder `source_tokenizer` inside the graft's."""
    source_eos: bool = False
    """Sources keep the EOS or SEP that their tokenizer ends them with; False where the target continues the source."""
    target_special_tokens: bool = False
    """Targets carry whatever their tokenizer puts around a target, as BART's and mBART's do; False: one EOS only."""
    tie_word_embeddings: bool = True
    is_encoder_decoder: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.bridge is None:
            self.bridge = BridgeConfig()
        super().__post_init__(**kwargs)
        if self.encoder is not None and self.decoder is not None:
            self._check()

    @property
    def can_share_layers(self) -> bool:
        """The encoder has the decoder's shape and table, at most as many layers, and no norm after them."""
        encoder, decoder = self.encoder, self.decoder
        assert isinstance(encoder, StackConfig)
        assert isinstance(decoder, StackConfig)
        alike = dataclasses.replace(
            encoder,
            num_layers=decoder.num_layers,
            layer_types=decoder.layer_types,
            final_norm=decoder.final_norm,
            window=decoder.window,
        )
        fits = not encoder.final_norm and encoder.num_layers <= decoder.num_layers
        return alike == decoder and self.share_embeddings and fits

    def _check(self) -> None:
        encoder, decoder, bridge = self.encoder, self.decoder, self.bridge
        assert isinstance(encoder, StackConfig)
        assert isinstance(decoder, StackConfig)
        assert isinstance(bridge, BridgeConfig)
        _one_of("cross_mode", self.cross_mode, ("merged", "separate"))
        _one_of("encoder_attention", self.encoder_attention, ("causal", "bidirectional"))
        _one_of("memory_norm", self.memory_norm, ("layer_input", "none"))
        _one_of("memory_window", self.memory_window, ("by_position", "none"))
        _one_of("positions", self.positions, ("continued", "restarted"))
        _one_of("decoder_start", self.decoder_start, ("last_source_token", "bos"))
        if self.cross_mode == "separate" and (self.memory_norm, self.memory_window) != ("none", "none"):
            raise ConfigError(
                "cross_mode separate reads the memory as it is: set memory_norm and memory_window to none."
            )
        if self.cross_mode == "merged" and encoder.hidden_size != decoder.hidden_size:
            raise ConfigError(
                f"cross_mode merged needs stacks of one width, not {encoder.hidden_size} and {decoder.hidden_size}; "
                "use cross_mode separate."
            )
        if self.share_embeddings and (encoder.vocab_size, encoder.hidden_size) != (
            decoder.vocab_size,
            decoder.hidden_size,
        ):
            raise ConfigError("share_embeddings needs one vocabulary and one width on both sides; set it to false.")
        if self.share_layers and not self.can_share_layers:
            raise ConfigError(
                "share_layers needs share_embeddings and an encoder of the decoder's shape, without a final norm and "
                "with at most as many layers; set it to false."
            )
        if bridge.kind == "aligned" and encoder.num_layers != decoder.num_layers - 1:
            raise ConfigError(
                f"bridge aligned needs an encoder of {decoder.num_layers - 1} layers (one fewer than the decoder), "
                f"not {encoder.num_layers}."
            )
        if bridge.kind == "aligned" and encoder.final_norm:
            raise ConfigError("bridge aligned reads raw states: set the encoder's final_norm to false.")
        if self.memory_window == "by_position" and self.positions != "continued":
            raise ConfigError("memory_window by_position counts from the source: set positions to continued.")
        if self.decoder_start == "last_source_token" and self.positions != "continued":
            raise ConfigError("decoder_start last_source_token keeps its source position: set positions to continued.")
        if self.decoder_start == "last_source_token" and self.source_eos:
            raise ConfigError("decoder_start last_source_token continues the source: set source_eos to false.")
        if self.source_tokenizer and self.share_embeddings:
            raise ConfigError("share_embeddings needs one tokenizer on both sides, not two; set it to false.")
