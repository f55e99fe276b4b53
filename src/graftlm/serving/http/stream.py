"""Completions while they are written, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any

from starlette.concurrency import run_in_threadpool

from graftlm.errors import GraftError
from graftlm.serving.engine import Engine
from graftlm.serving.http.errors import error_body
from graftlm.serving.http.schema import CompletionBody, choice, usage
from graftlm.serving.request import Completion

log = logging.getLogger(__name__)

DONE = "data: [DONE]\n\n"


class CompletionStream:
    """One streamed request: submitted by `open`, sent by `events`, cancelled when nobody reads them any more."""

    def __init__(self, body: CompletionBody, head: dict[str, Any]) -> None:
        self._body = body
        self._head = head
        # Index of a choice, and a piece of its text, or None once it has ended.
        self._events: asyncio.Queue[tuple[int, str | None]] = asyncio.Queue()
        self._futures: list[Future[Completion]] = []

    async def open(self, engine: Engine) -> None:
        """Hand the request to the engine. Raises: RequestError when it cannot be answered."""
        loop = asyncio.get_running_loop()

        def send(index: int, piece: str | None) -> None:
            # The engine calls from its own thread.
            loop.call_soon_threadsafe(self._events.put_nowait, (index, piece))

        self._futures = await run_in_threadpool(lambda: engine.submit(self._body.requests(), send))
        for index, future in enumerate(self._futures):
            future.add_done_callback(lambda _, index=index: send(index, None))  # type: ignore[misc]

    async def events(self) -> AsyncIterator[str]:
        """The response's body, event by event."""
        try:
            running = len(self._futures)
            while running:
                index, piece = await self._events.get()
                if piece is None:
                    running -= 1
                    yield self._chunk(choice(index, "", self._futures[index].result().finish_reason))
                else:
                    yield self._chunk(choice(index, piece, None))
            if self._with_usage:
                counted = usage([future.result() for future in self._futures], self._body.n or 1)
                yield _event({**self._head, "choices": [], "usage": counted})
        except Exception as error:
            # The status is sent already, so the error travels as an event, and nobody else would log it.
            if not isinstance(error, GraftError):
                log.exception("A stream failed.")
            yield _event(error_body(error))
        finally:
            for future in self._futures:
                future.cancel()
        yield DONE

    @property
    def _with_usage(self) -> bool:
        return self._body.stream_options is not None and self._body.stream_options.include_usage

    def _chunk(self, one: dict[str, Any]) -> str:
        return _event({**self._head, "choices": [one], **({"usage": None} if self._with_usage else {})})


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
