"""Weight maps: one table per family from its tensor names to ours; both directions, with the layer as a named hole."""

from __future__ import annotations

import re
from dataclasses import dataclass

HOLE = "{layer}"


@dataclass(frozen=True)
class Rename:
    """One tensor per layer where the names hold `{layer}`, else one tensor."""

    source: str
    ours: str

    def __post_init__(self) -> None:
        assert (HOLE in self.source) == (HOLE in self.ours)


@dataclass(frozen=True)
class WeightMap:
    """The table of one family; ours are the names of CausalLM. `dropped` are tensors that carry no weights."""

    rules: tuple[Rename, ...]
    dropped: tuple[str, ...] = ()

    def to_ours(self, name: str) -> str | None:
        """Our name of a source tensor; None where no rule speaks of it.

        >>> m = WeightMap((Rename("model.layers.{layer}.mlp.up.weight", "decoder.layers.{layer}.up.weight"),))
        >>> m.to_ours("model.layers.3.mlp.up.weight")
        'decoder.layers.3.up.weight'
        """
        return _apply([(rule.source, rule.ours) for rule in self.rules], name)

    def to_source(self, name: str) -> str | None:
        """Source name of one of our tensors; None where no rule speaks of it."""
        return _apply([(rule.ours, rule.source) for rule in self.rules], name)

    def is_dropped(self, name: str) -> bool:
        """The source tensor is one of those left behind on purpose."""
        return any(_match(pattern, name) is not None for pattern in self.dropped)


def _apply(pairs: list[tuple[str, str]], name: str) -> str | None:
    for pattern, template in pairs:
        layer = _match(pattern, name)
        if layer is not None:
            return template.replace(HOLE, layer)
    return None


def _match(pattern: str, name: str) -> str | None:
    """What the hole holds, the empty string for a pattern without one, None for another name."""
    found = re.fullmatch(re.escape(pattern).replace(re.escape(HOLE), r"(\d+)"), name)
    if found is None:
        return None
    return found.group(1) if HOLE in pattern else ""
