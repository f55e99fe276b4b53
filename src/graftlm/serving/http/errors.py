"""Errors as the OpenAI API words them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from graftlm.errors import GraftError, RequestError
from graftlm.serving.http.schema import body_error

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(error: Exception) -> dict[str, Any]:
    """What a client is told about an error."""
    known = error if isinstance(error, RequestError) else None
    status = known.status if known else 500
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    # What was not meant for clients may hold anything, so they are not told of it.
    message = str(error) if isinstance(error, GraftError) else "The server failed; its log says why."
    param, code = (known.param, known.code) if known else (None, None)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: Exception) -> JSONResponse:
    """The response that ends a request with an error."""
    status = error.status if isinstance(error, RequestError) else 500
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(status)
    return JSONResponse(error_body(error), status_code=status, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Give every error that can leave the app this one form."""

    @app.exception_handler(RequestValidationError)
    async def _body(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(body_error(error.errors()))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = f"There is no {request.method} {request.url.path} here; there are /v1/completions and /v1/models."
        elif error.status_code == 400:
            message = "The body cannot be read; send a JSON object in UTF-8."
        return error_response(RequestError(message, status=error.status_code))

    @app.exception_handler(GraftError)
    @app.exception_handler(Exception)
    async def _any(_: Request, error: Exception) -> JSONResponse:
        return error_response(error)
