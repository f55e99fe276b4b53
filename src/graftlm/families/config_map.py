"""Config maps: one table per family that reads a transformers config and writes it back; total, or an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from graftlm.errors import ConfigError, ConversionError
from graftlm.families.stock_config import Values, gathered, spread
from graftlm.model.config import CausalLMConfig, StackConfig

TOKENS = {"bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id"}
BOOKKEEPING = frozenset(
    {
        "architectures",
        "auto_map",
        "chunk_size_feed_forward",
        "custom_pipelines",
        "dtype",
        "finetuning_task",
        "gradient_checkpointing",
        "id2label",
        "label2id",
        "model_type",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "prefix",
        "problem_type",
        "return_dict",
        "sep_token_id",
        "task_specific_params",
        "tf_legacy_loss",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "transformers.js_config",
        "transformers_version",
        "unsloth_fixed",
        "unsloth_version",
        "use_bfloat16",
        "use_cache",
    }
)
"""Fields that the config of any release may carry and that say nothing about the computation."""

UNSET = frozenset(
    {
        "add_cross_attention",
        "cross_attention_hidden_size",
        "decoder_start_token_id",
        "is_decoder",
        "is_encoder_decoder",
        "pruned_heads",
        "tie_encoder_decoder",
    }
)
"""Fields that transformers 4 stored in any config: where a table does not speak of one, it must be off or empty."""

OF_GENERATION = frozenset(vars(GenerationConfig())) - TOKENS
"""Ways to generate that old releases keep in the model's config; a donor's generation_config reads them."""

STACK_FIELDS = frozenset(field.name for field in dataclasses.fields(StackConfig))
PARTS = ("encoder", "decoder", "bridge")
NOT_OF_FAMILIES = frozenset({*PARTS, "recipe", "made_from", "is_encoder_decoder", "source_tokenizer"})
"""Fields of our configs that say where a model comes from, or are nested."""

MOST_NAMED = 6
"""Differences that an error spells out."""


@dataclass(frozen=True)
class Rule:
    """How some fields of the source become some of ours and back.

    Ours are the fields of StackConfig and of the config around it; where there are two stacks, those of a stack are
    called encoder.NAME and decoder.NAME. Fields of nested source configs have dotted names too.
    """

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


def off(source: str, reason: str) -> Rule:
    """A switch that must be off, absent or null; it is refused for `reason` otherwise, and never written."""

    def read(values: Values) -> Values:
        if values.get(source):
            raise ConversionError(f"{source}={values[source]!r} ({reason})")
        return {}

    return Rule((source,), read, lambda o: {})


def ignored(source: str, reason: str) -> Rule:
    """A field that does not change the computation, for `reason`."""
    assert reason
    return Rule((source,), lambda s: {}, lambda o: {})


def repeated(source: str, ours: str) -> Rule:
    """A field that says again what is read elsewhere: only written."""
    return Rule((source,), lambda s: {}, lambda o: {source: o[ours]})


def given(ours: str, value: Callable[[Values], Any]) -> Rule:
    """One of our fields that the family fixes, as a function of the source config."""
    return Rule((), lambda s: {ours: value(s)}, lambda o: {})


def within(field: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Rules for a config that is nested in another as `field`."""

    def moved(rule: Rule) -> Rule:
        return Rule(
            tuple(f"{field}.{name}" for name in rule.source),
            lambda s: rule.read(_below(s, field)),
            lambda o: {f"{field}.{name}": value for name, value in rule.write(o).items()},
        )

    return tuple(map(moved, rules))


def on(part: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Rules for a single stack as rules for one of two; fields that are no stack's stay as they are."""

    def placed(rule: Rule) -> Rule:
        return Rule(
            rule.source,
            lambda s: {_of(part, name): value for name, value in rule.read(s).items()},
            lambda o: rule.write({**o, **_below(o, part)}),
        )

    return tuple(map(placed, rules))


def both(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Rules for a single stack as rules for two that are alike."""

    def doubled(rule: Rule) -> Rule:
        def read(s: Values) -> Values:
            ours = rule.read(s)
            return {_of(part, name): value for part in PARTS[:2] for name, value in ours.items()}

        return Rule(rule.source, read, lambda o: rule.write({**o, **_below(o, "decoder")}))

    return tuple(map(doubled, rules))


def _of(part: str, name: str) -> str:
    return f"{part}.{name}" if name in STACK_FIELDS else name


def _below(values: Values, field: str) -> dict[str, Any]:
    start = f"{field}."
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}


@dataclass(frozen=True)
class ConfigMap:
    """The table of one family.

    `kind` is the config of ours that it makes, `stack` the name of the stack in it where it has only one, and `nested`
    are the fields of the source that hold configs of their own, outer ones first.
    """

    rules: tuple[Rule, ...]
    kind: type[PreTrainedConfig] = CausalLMConfig
    stack: str | None = "decoder"
    nested: tuple[str, ...] = ()
    head_by_weights: bool = False
    """Whether the head is tied is no setting: it is, unless the weights hold one that differs from the table."""

    def known(self) -> frozenset[str]:
        """Every source field that the table speaks of."""
        anywhere = BOOKKEEPING | OF_GENERATION
        of_nested = {f"{part}.{name}" for part in self.nested for name in anywhere}
        return anywhere | of_nested | {name for rule in self.rules for name in rule.source}

    def read(self, raw: Values, completed: Values) -> Any:
        """Our config of a source.

        `raw` are the fields as stored, `completed` the same after transformers filled in defaults.
        Raises: ConversionError that lists every unknown field and every unsupported value at once.
        """
        known = self.known()
        names = spread(raw, self.nested)
        unknown = sorted(n for n, value in names.items() if n not in known and not _harmless(n, value))
        problems = [f"{n} (unknown field)" for n in unknown]
        values, ours = spread(completed, self.nested), dict[str, Any]()
        for rule in self.rules:
            try:
                ours.update(rule.read(values))
            except ConversionError as error:
                problems.append(str(error))
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                given = ", ".join(f"{name}={values.get(name)!r:.60}" for name in rule.source)
                problems.append(f"{given or 'its sizes'} (not understood)")
        if not problems:
            try:
                return self._build(ours)
            except ConfigError as error:
                problems.append(str(error).removesuffix("."))
        whose = f" of this {raw['model_type']} model" if "model_type" in raw else ""
        raise ConversionError(
            f"The config{whose} has settings that graftlm does not support: "
            f"{'; '.join(' '.join(problem.split()) for problem in problems)}."
        )

    def write(self, config: PreTrainedConfig, complete: Callable[[Values], Values]) -> dict[str, Any]:
        """The source's fields for one of our configs; `complete` fills in transformers' defaults.

        Raises: ConversionError that names what this family cannot express.
        """
        ours = self.flat(config)
        flat, unfilled = dict[str, Any](), list[str]()
        for rule in self.rules:
            try:
                flat.update(rule.write(ours))
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                unfilled += rule.source
        if unfilled:
            raise ConversionError(
                f"This family needs {', '.join(dict.fromkeys(unfilled))}, which the model does not have."
            )
        written = gathered(flat)
        back = self.flat(self.read(written, complete(written)))
        lost = [name for name in ours if ours[name] != back[name]]
        if lost:
            raise ConversionError(f"This family cannot express {_named(lost, ours, back)}.")
        return written

    def flat(self, config: PreTrainedConfig) -> dict[str, Any]:
        """One of our configs as the values that rules read and write."""
        values = {name: getattr(config, name) for name in self._around()}
        for part in PARTS:
            inner = getattr(config, part, None)
            if inner is not None:
                prefix = "" if part == self.stack else f"{part}."
                values |= {f"{prefix}{f.name}": getattr(inner, f.name) for f in dataclasses.fields(inner)}
        return values

    def _build(self, ours: dict[str, Any]) -> PreTrainedConfig:
        around = self._around()
        values: dict[str, Any] = {}
        for name, value in ours.items():
            part, dot, inner = name.partition(".")
            if dot or name in around:
                place = values.setdefault(part, {}) if dot else values
                place[inner or name] = value
            else:
                assert self.stack is not None, name
                values.setdefault(self.stack, {})[name] = value
        return self.kind(**values)

    def _around(self) -> list[str]:
        fields = (f for f in self.kind.__annotations__ if f not in NOT_OF_FAMILIES)
        unset = {"tie_word_embeddings"} if self.head_by_weights else set()
        annotations = self.kind.__annotations__
        return [n for n in fields if n not in unset and not str(annotations[n]).startswith("ClassVar")]


def _harmless(name: str, value: Any) -> bool:
    last = name.rpartition(".")[2]
    return last.startswith("_") or (last in UNSET and not value)


def _named(lost: list[str], ours: Values, back: Values) -> str:
    """What differs, the bridge and how the parts are joined before the stacks; the first few of many."""
    first = sorted(lost, key=lambda name: (not name.startswith("bridge."), "." in name))[:MOST_NAMED]
    more = f" and {len(lost) - len(first)} more" if len(lost) > len(first) else ""
    return ", ".join(f"{name}={short(ours[name])} (it has {short(back[name])})" for name in first) + more
