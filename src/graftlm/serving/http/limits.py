"""Who may ask, and how much at once: checked before a body is read."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graftlm.errors import RequestError
from graftlm.serving.http.errors import error_response

MAX_BODY = 8 * 2**20
"""Bytes of a request's body."""
OPEN = ("/health",)
"""Paths that need no key."""


class KeyCheck:
    """Refuses requests without one of the API keys, if there are any."""

    def __init__(self, app: ASGIApp, api_keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with status 401."""
        if scope["type"] != "http" or scope["path"] in OPEN or self._allows(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        message = "The API key is missing or wrong; send it as Authorization: Bearer KEY."
        response = error_response(RequestError(message, status=401, code="invalid_api_key"))
        await response(scope, receive, send)

    def _allows(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        # Headers are read as Latin-1, which gives back the bytes that were sent.
        given = key.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
        # All are compared, and each in constant time, so that timing tells nothing about them.
        matches = [secrets.compare_digest(given, known) for known in self._keys]
        return not self._keys or any(matches)


class BodyLimit:
    """Refuses a body over the limit while it arrives, before it fills the memory."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what it brings."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(413, f"The body is over {self._limit:,} bytes; send less at once.")
            return message

        await self._app(scope, counted, send)
