"""Some of a stack's layers, chosen by their numbers, so that a graft can be shallower than what it is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from graftlm.errors import ConfigError

SPAN = re.compile(r"\s*(\d{1,5})(?:-(\d{1,5})(?::(\d{1,5}))?)?\s*")
NUMBER = re.compile(r"(?<=coder\.layers\.)\d+(?=\.)")


@dataclass(frozen=True)
class Layers:
    """Numbers of the layers that are kept, from 0, in rising order; they count anew in the graft."""

    numbers: tuple[int, ...]

    @classmethod
    def of(cls, given: str | Iterable[int], depth: int, option: str) -> Self:
        """Those that are `given` of a stack of `depth` layers: as numbers, or as text such as 0-11, 0,4,8 or 0-22:2.

        The last is every second one. `option` is what errors call it.
        Raises: ConfigError, with the numbers that there are.

        >>> Layers.of("0,3-9:2", 12, "encoder_layers").numbers
        (0, 3, 5, 7, 9)
        """
        found = _spans(given, depth) if isinstance(given, str) else list(given)
        rising = all(isinstance(number, int) for number in found) and found == sorted(set(found))
        if not found or not rising or not 0 <= found[0] <= found[-1] < depth:
            raise ConfigError(
                f"{option} is {given!r}; give some of layers 0 to {depth - 1}, each once and in rising order, such as "
                f"0-{depth - 1} or 0-{depth - 1}:2 (every second one)."
            )
        return cls(tuple(found))

    def source(self, name: str) -> str:
        """What the tensor `encoder.layers.…` or `decoder.layers.…` of the graft is called where it comes from.

        >>> Layers((0, 4, 8)).source("decoder.layers.1.mlp.up_proj.weight")
        'decoder.layers.4.mlp.up_proj.weight'
        """
        return NUMBER.sub(lambda found: str(self.numbers[int(found[0])]), name, count=1)


def _spans(text: str, depth: int) -> list[int]:
    """The numbers of a text, or none where it cannot be read or goes beyond the stack."""
    numbers: list[int] = []
    for span in text.split(","):
        found = SPAN.fullmatch(span)
        if found is None:
            return []
        first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
        if not first <= last < depth or step == 0:
            return []
        numbers += range(first, last + 1, step)
    return numbers
