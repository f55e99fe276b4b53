"""Config maps: one table per family that reads a transformers config and writes it back; total, or an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graftlm.errors import ConversionError
from graftlm.model.config import CausalLMConfig, StackConfig

Values = Mapping[str, Any]

BOOKKEEPING = frozenset(
    {
        "architectures",
        "chunk_size_feed_forward",
        "dtype",
        "id2label",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Fields that every transformers config may carry and that say nothing about the computation."""

_LM_FIELDS = ("tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id")


@dataclass(frozen=True)
class Rule:
    """How some fields of the source become some of ours and back. Ours are those of StackConfig and CausalLMConfig."""

    source: tuple[str, ...]
    read: Callable[[Values], Values]
    """Source values -> our values. Raises ConversionError, without the field's name, for what cannot be supported."""
    write: Callable[[Values], Values]
    """Our values -> source values."""


def same(source: str, ours: str | None = None, *, also: tuple[str, ...] = ()) -> Rule:
    """One field under two names. `also` are names that older configs use for it, folded into it by transformers."""
    name = ours or source
    return Rule((source, *also), lambda s: {name: s[source]}, lambda o: {source: o[name]})


def pinned(source: str, value: Any, reason: str) -> Rule:
    """A field that must have one value; any other is refused for `reason`."""

    def read(values: Values) -> Values:
        if values[source] != value:
            raise ConversionError(f"{source}={values[source]!r} ({reason})")
        return {}

    return Rule((source,), read, lambda o: {source: value})


def ignored(source: str, reason: str) -> Rule:
    """A field that does not change the computation, for `reason`."""
    assert reason
    return Rule((source,), lambda s: {}, lambda o: {})


def given(ours: str, value: Callable[[Values], Any]) -> Rule:
    """One of our fields that the family fixes, as a function of the source config."""
    return Rule((), lambda s: {ours: value(s)}, lambda o: {})


@dataclass(frozen=True)
class ConfigMap:
    """The table of one family."""

    rules: tuple[Rule, ...]

    def known(self) -> frozenset[str]:
        """Every source field that the table speaks of."""
        return BOOKKEEPING | {name for rule in self.rules for name in rule.source}

    def read(self, raw: Values, completed: Values) -> CausalLMConfig:
        """Our config of a source.

        `raw` are the fields as stored, `completed` the same after transformers filled in defaults.
        Raises: ConversionError that lists every unknown field and every unsupported value at once.
        """
        problems = [f"{name} (unknown field)" for name in sorted(raw) if not self._knows(name)]
        ours: dict[str, Any] = {}
        for rule in self.rules:
            try:
                ours.update(rule.read(completed))
            except ConversionError as error:
                problems.append(str(error))
        if problems:
            raise ConversionError(
                f"The config of this {raw.get('model_type')} model has settings that graftlm does not support: "
                f"{'; '.join(problems)}."
            )
        lm = {name: ours.pop(name) for name in _LM_FIELDS}
        return CausalLMConfig(decoder=StackConfig.from_dict(ours), **lm)

    def write(self, config: CausalLMConfig, complete: Callable[[Values], Values]) -> dict[str, Any]:
        """The source's fields for one of our configs; `complete` fills in transformers' defaults.

        Raises: ConversionError that names what this family cannot express.
        """
        ours = _flat(config)
        written: dict[str, Any] = {}
        for rule in self.rules:
            written.update(rule.write(ours))
        back = _flat(self.read(written, complete(written)))
        lost = [name for name in ours if ours[name] != back[name]]
        if lost:
            raise ConversionError(f"This family cannot express {', '.join(f'{n}={ours[n]!r}' for n in lost)}.")
        return written

    def _knows(self, name: str) -> bool:
        return name in self.known() or name.startswith("_")


def _flat(config: CausalLMConfig) -> dict[str, Any]:
    assert isinstance(config.decoder, StackConfig)
    stack = {f.name: getattr(config.decoder, f.name) for f in dataclasses.fields(config.decoder)}
    return stack | {name: getattr(config, name) for name in _LM_FIELDS}
