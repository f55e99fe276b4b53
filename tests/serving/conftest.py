"""A tiny graft with task encoders on disk, engines on it, and a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from small import MAX_NEW_TOKENS, Expect, MakeEngine, tiny_graft, write_encoder

import graftlm.hf  # noqa: F401 - gives the model add_task_encoder
import tiny
from graftlm.adaptation.task_encoder import load_task_encoder
from graftlm.data.task import Task
from graftlm.generation.text import generate_texts
from graftlm.model.adapter import AdapterConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.engine import Engine


@pytest.fixture
def model() -> GraftForConditionalGeneration:
    """The graft that all encoders here belong to; fresh for every test."""
    return tiny_graft()


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Task encoders `a` and `b` of one task each, and `mixed` of two; all but `a` have a decoder adapter."""
    root = tmp_path_factory.mktemp("encoders")
    task = Task(name="tiny", max_new_tokens=MAX_NEW_TOKENS)
    asked = Task(name="asked", max_new_tokens=6, source_template="Q: {source}")
    return {
        "a": write_encoder(root / "a", 1, task),
        "b": write_encoder(root / "b", 2, task, adapter=AdapterConfig(kind="lora", rank=2)),
        "mixed": write_encoder(root / "mixed", 3, task, asked, adapter=AdapterConfig(kind="ia3")),
    }


@pytest.fixture(scope="session")
def expect(encoders: dict[str, Path]) -> Expect:
    """`expect("a", source)`: what a model with that encoder alone writes, as `graftlm generate` would."""
    models = {}
    for name, folder in encoders.items():
        models[name] = tiny_graft()
        load_task_encoder(models[name], folder)
    models["graft"] = tiny_graft()

    def text(name: str, source: str, max_new_tokens: int = MAX_NEW_TOKENS, **settings: Any) -> str:
        return generate_texts(models[name], tiny.tokenizer(), [source], max_new_tokens=max_new_tokens, **settings)[0]

    return text


@pytest.fixture
def make_engine(model: GraftForConditionalGeneration, encoders: dict[str, Path]) -> Iterator[MakeEngine]:
    """Engines with the task encoders attached, closed when the test ends."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Engine:
            settings = {"task_encoders": encoders} | settings
            return stack.enter_context(Engine(model, tiny.tokenizer(), **settings))

        yield make


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    """An engine with default settings."""
    return make_engine()


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], str]]:
    """`serve(app)` -> address of a real server for it, stopped when the test ends."""
    running = []

    def start(app: FastAPI) -> str:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()
