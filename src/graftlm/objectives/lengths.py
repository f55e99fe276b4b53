"""How much of a document one example takes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from random import Random

from graftlm.data.texts import SHORTEST
from graftlm.errors import ConfigError, TaskError
from graftlm.objectives.frame import Frame


def longest(sizes: Callable[[int], tuple[int, int]], frame: Frame) -> int:
    """Most tokens of a document whose source and target fit the frame.

    `sizes(n)` are the tokens that n make at most on either side, between the special ones; neither falls as n rises,
    and together they are at least n.
    Source: what random_spans_helper of T5's preprocessors is for; here the target's limit counts as well.
    Raises: ConfigError when not even two tokens fit.

    >>> longest(lambda n: (n // 2, n - n // 2), Frame(source_length=10, target_length=8, target_end=(2,)))
    14
    """
    source_room, target_room = frame.room

    def exceeds(tokens: int) -> bool:
        source, target = sizes(tokens)
        return source > source_room or target > target_room

    lengths = range(SHORTEST, source_room + target_room + 2)
    length = SHORTEST - 1 + bisect_left(lengths, True, key=exceeds)
    if length < SHORTEST:
        raise ConfigError(
            f"source_length {frame.source_length} and target_length {frame.target_length} leave no room for an "
            "example of this objective; raise them."
        )
    return length


def window(length: int, limit: int, rng: Random) -> range:
    """Positions of the part of a document that an example is made of: all of them where they are within the limit.

    A longer document falls into parts of `limit` tokens and a shorter last one, each equally likely, so that every
    token is. A last token that would be alone is left out.
    Source: select_random_chunk of T5's preprocessors.
    Raises: TaskError for a document that is too short to be split.

    >>> window(5, 8, Random(0)), {window(8, 3, Random(seed)) for seed in range(20)} == {
    ...     range(0, 3), range(3, 6), range(6, 8)}
    (range(0, 5), True)
    """
    if length < SHORTEST:
        raise TaskError(
            f"A document of {length} token{'' if length == 1 else 's'} cannot be split into source and target; "
            f"leave out those of fewer than {SHORTEST}."
        )
    start = limit * rng.randrange((length - SHORTEST) // limit + 1)
    return range(start, min(start + limit, length))
