"""Token ids to text, piece by piece, without ever taking a character back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"
"""What tokenizers write for bytes that are not yet a character."""


class TextStream:
    """The text of one target as its tokens arrive.

    Half a character and what may become a stop text are held back until the next tokens tell.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._ids: list[int] = []
        # Only the ids of the last finished piece and those after it are decoded, so that a step's cost stays the same;
        # that piece is needed since some tokenizers write a token differently at the beginning of a text.
        self._start = self._read = 0
        self._held = ""
        self.stopped = False
        """A stop text was reached; everything from it on is left out."""

    def push(self, token: int) -> str:
        """Text that this token settles, often none."""
        self._ids.append(token)
        piece = self._new_text()
        if not piece or piece.endswith(UNFINISHED):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return self._settle(piece)

    def flush(self) -> str:
        """All that was held back, once no further token comes."""
        rest = self._settle(self._new_text())
        if not self.stopped:
            rest, self._held = rest + self._held, ""
        return rest

    def _new_text(self) -> str:
        known = self._decode(self._ids[self._start : self._read])
        return self._decode(self._ids[self._start :])[len(known) :]

    def _settle(self, piece: str) -> str:
        if self.stopped:
            return ""
        text = self._held + piece
        ends = [found for found in (text.find(stop) for stop in self._stop) if found >= 0]
        if ends:
            self.stopped = True
            return text[: min(ends)]
        kept = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with.

    >>> _overlap("the end #", "###")
    1
    """
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
