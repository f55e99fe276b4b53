"""The routes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from graftlm.errors import GraftError, RequestError
from graftlm.serving.engine import Engine
from graftlm.serving.http.errors import add_error_handlers
from graftlm.serving.http.limits import BodyLimit, KeyCheck
from graftlm.serving.http.schema import CompletionBody, TaskEncoderBody, choice, model_card, usage
from graftlm.serving.http.stream import CompletionStream
from graftlm.serving.request import Completion

CLIENT_GONE = 499
"""Status for the log alone: there is nobody to send it to."""


def create_app(engine: Engine, api_keys: Sequence[str] = (), *, allow_task_encoder_changes: bool = False) -> FastAPI:
    """The engine's HTTP side. With `api_keys`, everything but /health needs one of them.

    Task encoders can be added and removed only if that is allowed, since adding reads folders of this machine.
    """
    app = FastAPI(title="graftlm", docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit)
    app.add_middleware(KeyCheck, api_keys=api_keys)
    add_error_handlers(app)

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": engine.state}, status_code=200 if engine.state == "ok" else 503)

    app.include_router(_models(engine), prefix="/v1")
    app.include_router(_completions(engine), prefix="/v1")
    app.include_router(_task_encoders(engine, allow_task_encoder_changes), prefix="/v1")
    return app


def _models(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_card(served, engine.name) for served in engine.all_served()]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return model_card(engine.served(name), engine.name)

    return router


def _completions(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.post("/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }
        if body.stream:
            stream = CompletionStream(body, head)
            await stream.open(engine)
            return StreamingResponse(stream.events(), media_type="text/event-stream")
        finished = await _complete(engine, body, request)
        if finished is None:
            return Response(status_code=CLIENT_GONE)
        choices = [choice(i, one.text, one.finish_reason) for i, one in enumerate(finished)]
        return JSONResponse({**head, "choices": choices, "usage": usage(finished, body.n or 1)})

    return router


async def _complete(engine: Engine, body: CompletionBody, request: Request) -> list[Completion] | None:
    """All completions, or None if the client goes away first, which cancels them."""
    futures = await run_in_threadpool(lambda: engine.submit(body.requests()))
    work = asyncio.gather(*map(asyncio.wrap_future, futures))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        return await work if work.done() else None
    finally:
        gone.cancel()
        work.cancel()
        for future in futures:
            future.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _task_encoders(engine: Engine, allowed: bool) -> APIRouter:
    router = APIRouter()

    def check_allowed() -> None:
        if not allowed:
            raise RequestError(
                "Task encoders cannot be changed here; start the server with --allow-task-encoder-changes.", status=403
            )

    @router.post("/task_encoders", dependencies=[Depends(check_allowed)])
    def add(body: TaskEncoderBody) -> dict[str, Any]:
        try:
            added = engine.add_task_encoder(body.path, body.name)
        except GraftError as error:
            raise RequestError(str(error)) from error
        return {"object": "list", "data": [model_card(served, engine.name) for served in added]}

    @router.delete("/task_encoders/{name}", dependencies=[Depends(check_allowed)])
    def remove(name: str) -> dict[str, Any]:
        engine.remove_task_encoder(name)
        return {"id": name, "object": "task_encoder", "deleted": True}

    return router
