"""Ask a running engine over HTTP, as its clients do."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from graftlm.serving.engine import Engine


@contextmanager
def served(engine: Engine) -> Iterator[str]:
    """Address of a server for the engine, on a free port of this machine, as long as the block runs."""
    import uvicorn

    from graftlm.serving.http.app import create_app

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(engine), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def ask(address: str, requests: Sequence[tuple[str, str]]) -> list[str]:
    """Targets of (model, prompt), all asked for at the same time."""
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: _complete(address, *request), requests))


def _complete(address: str, model: str, prompt: str) -> str:
    body = json.dumps({"model": model, "prompt": prompt}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/v1/completions", body, headers)) as answer:
        text: str = json.load(answer)["choices"][0]["text"]
    return text
