"""Phases: a schedule of what trains, such as cross-attention alone first and then everything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graftlm.errors import ConfigError, meant


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a run with a freeze plan of its own; all but the last of a run give `steps` or `share`."""

    freeze: str
    steps: int | None = None
    """Updates."""
    share: float | None = None
    """Part of all updates of the run, above 0 and below 1; at least one update."""

    def __post_init__(self) -> None:
        if not isinstance(self.freeze, str):
            raise ConfigError(f"freeze of a phase is {self.freeze!r}; it must be text, as for a run without phases.")
        if self.steps is not None and (type(self.steps) is not int or self.steps < 1):
            raise ConfigError(f"steps of a phase is {self.steps!r}; it must be a whole number of at least 1.")
        if self.share is not None and not (isinstance(self.share, float) and 0 < self.share < 1):
            raise ConfigError(f"share of a phase is {self.share!r}; it must be a number between 0 and 1, such as 0.1.")
        if self.steps is not None and self.share is not None:
            raise ConfigError("A phase gives both steps and share; leave one of them out.")

    def length(self, total: int) -> int | None:
        """Updates of this phase in a run of `total`; None where it does not say."""
        return self.steps if self.share is None else max(1, round(self.share * total))


def begins(phases: Sequence[Phase], total: int) -> tuple[int, ...]:
    """Updates that are done when each phase of a run of `total` begins; a run without phases is one.

    Raises: ConfigError for lengths that are missing, too many, or leave nothing to the last phase.
    """
    if not phases:
        return (0,)
    *lengths, last = (phase.length(total) for phase in phases)
    if None in lengths:
        raise ConfigError(f"Phase {lengths.index(None) + 1} of {len(phases)} has no end; give it steps or share.")
    if last is not None:
        raise ConfigError("The last phase takes the updates that are left; leave out its steps and share.")
    done = [0]
    for length in lengths:
        assert length is not None
        done.append(done[-1] + length)
    if done[-1] >= total:
        raise ConfigError(
            f"The phases before the last take {done[-1]:,} of {total:,} updates; shorten them, or raise steps."
        )
    return tuple(done)


def read_phases(value: Any) -> tuple[Phase, ...]:
    """Phases as YAML has them: a list of fields of Phase, or nothing. Raises: ConfigError in one sentence."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(fields, dict) for fields in value):
        raise ConfigError("phases must be a list such as [{freeze: encoder, steps: 200}, {freeze: none}].")
    return tuple(_phase(fields) for fields in value)


def _phase(fields: dict[Any, Any]) -> Phase:
    known = [field.name for field in dataclasses.fields(Phase)]
    for name, value in fields.items():
        if name not in known and value is None:
            raise ConfigError(f"A phase has a field {name!r} without a value; put a plan with commas in quotes.")
        if name not in known:
            hint = meant(name, known, f"known are {', '.join(known)}.")
            raise ConfigError(f"A phase has an unknown field {name!r}; {hint}")
    if "freeze" not in fields:
        raise ConfigError("A phase does not say what to freeze; add freeze, which may be none.")
    return Phase(**fields)
