"""A real server: the `openai` client works with it, and clients that go away cost nothing more."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from fastapi import FastAPI
from small import Expect

from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.engine import Engine
from graftlm.serving.http.app import create_app

Serve = Callable[[FastAPI], str]


@pytest.fixture
def client(engine: Engine, serve: Serve) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=serve(create_app(engine, ["key"])) + "/v1", api_key="key", max_retries=0) as client:
        yield client


def test_the_openai_client(client: openai.OpenAI, expect: Expect) -> None:
    assert [model.id for model in client.models.list()][:3] == ["graft", "a", "b"]
    assert client.models.retrieve("b").id == "b"
    done = client.completions.create(model="a", prompt="the fox")
    assert done.choices[0].text == expect("a", "the fox")
    assert done.usage is not None
    assert done.usage.completion_tokens == 10
    options: Any = {"include_usage": True}
    chunks = list(client.completions.create(model="b", prompt="a", stream=True, stream_options=options))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == expect("b", "a")
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None


def test_the_openai_client_sees_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'c'") as unknown:
        client.completions.create(model="c", prompt="the fox")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="prompt is empty") as empty:
        client.completions.create(model="a", prompt="", stream=True)
    assert empty.value.param == "prompt"
    with pytest.raises(openai.BadRequestError, match="not supported"):
        client.completions.create(model="a", prompt="a", logprobs=2)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="other").models.list()


def test_many_clients_at_once(client: openai.OpenAI, expect: Expect) -> None:
    pairs = [(name, source) for source in ("the fox", "a", "lazy dogs") for name in ("a", "b", "graft")] * 3

    def ask(pair: tuple[str, str]) -> str:
        return client.completions.create(model=pair[0], prompt=pair[1], max_tokens=10).choices[0].text

    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(ask, pairs)) == [expect(*pair) for pair in pairs]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_is_not_decoded_for(
    engine: Engine, model: GraftForConditionalGeneration, serve: Serve, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    forward = model.forward
    steps = 0

    def slow(**given: Any) -> Any:
        nonlocal steps
        steps += 1
        time.sleep(0.02)
        return forward(**given)

    monkeypatch.setattr(model, "forward", slow)
    connection = http.client.HTTPConnection(urlsplit(serve(create_app(engine))).netloc)
    body = {"model": "a", "prompt": "the fox", "max_tokens": 50, "stream": stream}
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    while steps < 3:
        time.sleep(0.005)
    response = connection.getresponse() if stream else None
    connection.close()
    if response is not None:
        response.close()
    engine.close()
    assert steps < 40
