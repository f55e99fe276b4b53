"""Which sequences decode next."""

from __future__ import annotations

import threading
import time
from collections import deque

from graftlm.errors import RequestError
from graftlm.serving.sequence import Sequence

GATHER_SECONDS = 0.005
"""How long a batch that is not full waits for more, so that requests sent together decode together."""


class Scheduler:
    """Waiting sequences, first come, first served; safe to use from any thread."""

    def __init__(self, max_batch: int, max_waiting: int | None = None) -> None:
        self.max_batch = max_batch
        self.max_waiting = max_waiting
        self._waiting: deque[Sequence] = deque()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def closed(self) -> bool:
        """No more sequences are accepted."""
        return self._closed

    def put(self, sequences: list[Sequence]) -> None:
        """Accept all of them, or none. Raises: RequestError when there is no room or the engine is closing."""
        with self._changed:
            if self._closed:
                raise RequestError("The server is shutting down; send the request elsewhere.", status=503)
            if self.max_waiting is not None:
                self._check_room(len(sequences), self.max_waiting)
            self._waiting.extend(sequences)
            self._changed.notify_all()

    def _check_room(self, count: int, limit: int) -> None:
        if count > limit:
            raise RequestError(
                f"The request asks for {count} targets and at most {limit} can wait; send fewer at once."
            )
        self._drop_cancelled()
        if len(self._waiting) + count > limit:
            raise RequestError(
                f"{len(self._waiting)} requests are waiting and at most {limit} may; try again in a moment.",
                status=503,
                code="overloaded",
            )

    def next_batch(self) -> list[Sequence]:
        """Up to `max_batch` sequences, as soon as there is one; empty once the queue is closed and used up."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._closed:
                    self._gather()
                self._drop_cancelled()
                if self._waiting or self._closed:
                    return [self._waiting.popleft() for _ in range(min(self.max_batch, len(self._waiting)))]

    def close(self) -> None:
        """Accept nothing more; what waits is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _gather(self) -> None:
        deadline = time.monotonic() + GATHER_SECONDS
        self._changed.wait_for(
            lambda: self._closed or len(self._waiting) >= self.max_batch, timeout=deadline - time.monotonic()
        )

    def _drop_cancelled(self) -> None:
        self._waiting = deque(sequence for sequence in self._waiting if not sequence.done)
