"""The HTTP side: OpenAI's forms, and one clear sentence for everything that is wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from small import MAX_NEW_TOKENS, Expect, MakeEngine

from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.engine import Engine
from graftlm.serving.http.app import create_app
from graftlm.serving.http.limits import MAX_BODY

PATH = "/v1/completions"
FOX = {"model": "a", "prompt": "the fox"}


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    """A client of an app without keys, in which task encoders may change."""
    with TestClient(create_app(engine, allow_task_encoder_changes=True), raise_server_exceptions=False) as client:
        yield client


def events(response: Any) -> list[dict[str, Any]]:
    """The JSON events of a stream that ends as it should."""
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    *sent, last, rest = response.text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in sent]


def refused(response: Any, status: int, *words: str, param: str | None = None, code: str | None = None) -> None:
    """The response has the status and OpenAI's error form, with the words in its message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, code), error
    for word in words:
        assert word in error["message"], error


def test_a_completion(client: TestClient, expect: Expect) -> None:
    response = client.post(PATH, json=FOX)
    assert response.status_code == 200
    body = response.json()
    assert body["id"].startswith("cmpl-")
    assert (body["object"], body["model"], type(body["created"])) == ("text_completion", "a", int)
    assert body["choices"] == [
        {"index": 0, "text": expect("a", "the fox"), "logprobs": None, "finish_reason": "length"}
    ]
    read = body["usage"]["prompt_tokens"]
    assert read > 1
    assert body["usage"] == {
        "prompt_tokens": read,
        "completion_tokens": MAX_NEW_TOKENS,
        "total_tokens": read + MAX_NEW_TOKENS,
    }


def test_one_choice_per_prompt_and_copy(client: TestClient, expect: Expect) -> None:
    body = {"model": "b", "prompt": ["the fox", "a"], "n": 2, "temperature": 1, "seed": 5}
    answer = client.post(PATH, json=body).json()
    texts = [choice["text"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    assert texts == [choice["text"] for choice in client.post(PATH, json=body).json()["choices"]]
    assert texts[0] == expect("b", "the fox", do_sample=True, seed=5)
    greedy = client.post(PATH, json=body | {"temperature": 0}).json()["usage"]
    single = [client.post(PATH, json=FOX | {"prompt": prompt}).json()["usage"] for prompt in body["prompt"]]
    assert greedy["prompt_tokens"] == sum(usage["prompt_tokens"] for usage in single)
    assert greedy["completion_tokens"] == 2 * 2 * MAX_NEW_TOKENS


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 2}, {"max_tokens": 40}], ids=str)
def test_a_stream_is_the_same_text(client: TestClient, settings: dict[str, Any]) -> None:
    body = {"model": "b", "prompt": ["the fox", "né 日本"], **settings}
    whole = client.post(PATH, json=body).json()
    text = whole["choices"][0]["text"]
    body["stop"] = [text[len(text) // 2 :][:2]]
    whole = client.post(PATH, json=body).json()
    sent = events(client.post(PATH, json=body | {"stream": True}))
    assert len({event["id"] for event in sent}) == 1
    assert all("usage" not in event for event in sent)
    for choice in whole["choices"]:
        mine = [event["choices"][0] for event in sent if event["choices"][0]["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in mine) == choice["text"]
        assert [piece["finish_reason"] for piece in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]


def test_a_stream_ends_with_the_usage(client: TestClient) -> None:
    sent = events(client.post(PATH, json=FOX | {"stream": True, "stream_options": {"include_usage": True}}))
    assert all(event["usage"] is None for event in sent[:-1])
    assert sent[-1]["choices"] == []
    assert sent[-1]["usage"] == client.post(PATH, json=FOX).json()["usage"]


def test_neutral_values_change_nothing(client: TestClient, expect: Expect) -> None:
    neutral = {"best_of": 1, "echo": False, "frequency_penalty": 0.0, "logit_bias": {}, "presence_penalty": 0}
    absent = dict.fromkeys(["logprobs", "max_tokens", "n", "seed", "stop", "stream", "suffix", "temperature", "top_p"])
    body = client.post(PATH, json=FOX | neutral | absent | {"user": "somebody"}).json()
    assert body["choices"][0]["text"] == expect("a", "the fox")


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"max_token": 3}, "max_token", ["no field 'max_token'", "did you mean 'max_tokens'?"]),
        ({"zzz": 3}, "zzz", ["no field 'zzz'; leave it out"]),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", ["'stream_options.x'"]),
        ({"prompt": [5, 6]}, "prompt", ["token ids are not supported"]),
        ({"prompt": None}, "prompt", ["a text or a list of texts"]),
        ({"prompt": []}, "prompt", ["the list is empty"]),
        ({"prompt": ["a", " "]}, "prompt", ["The prompt is empty"]),
        ({"prompt": "a \ud800"}, "prompt", ["surrogate"]),
        ({"prompt": "the lazy dog " * 40}, "prompt", ["tokens and the limit is 54"]),
        ({"model": 3}, "model", ["model: it should be a valid string"]),
        ({"max_tokens": "3"}, "max_tokens", ["valid integer"]),
        ({"max_tokens": True}, "max_tokens", ["valid integer"]),
        ({"max_tokens": 0}, "max_tokens", ["max_tokens is 0"]),
        ({"max_tokens": 10**6}, "max_tokens", ["64 positions", "at most 63"]),
        ({"temperature": -0.5}, "temperature", ["0, which is greedy"]),
        ({"temperature": float("nan")}, "temperature", ["nan"]),
        ({"temperature": "hot"}, "temperature", ["valid number"]),
        ({"top_p": 1.5}, "top_p", ["top_p is 1.5"]),
        ({"n": 0}, "n", ["greater than or equal to 1"]),
        ({"seed": 1.5}, "seed", ["valid integer"]),
        ({"stop": [1]}, "stop", ["a text or a list of texts"]),
        ({"stop": ["a"] * 5}, "stop", ["at most 4"]),
        ({"stop": ""}, "stop", ["empty text"]),
        ({"logprobs": 1}, "logprobs", ["not supported"]),
        ({"echo": True}, "echo", ["not supported"]),
        ({"best_of": 3}, "best_of", ["not supported"]),
        ({"suffix": "x"}, "suffix", ["not supported"]),
        ({"stream_options": {"include_usage": True}}, None, ["needs stream: true"]),
    ],
    ids=str,
)
def test_bad_fields(client: TestClient, change: dict[str, Any], param: str | None, words: list[str]) -> None:
    code = {"max_token": "unknown_parameter", "zzz": "unknown_parameter", "stream_options.x": "unknown_parameter"}
    long = "context_length_exceeded" if "lazy" in str(change) else None
    for stream in ({}, {"stream": True}) if "stream_options" not in change else ({},):
        content = json.dumps(FOX | change | stream)
        response = client.post(PATH, content=content, headers={"content-type": "application/json"})
        refused(response, 400, *words, param=param, code=code.get(str(param), long))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{nope", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"", "must be a JSON object"),
        (b'"a"', "must be a JSON object"),
        (b'{"model": "a", "prompt": "\xff"}', "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
    ids=range(6),
)
def test_bodies_that_are_no_objects(client: TestClient, content: bytes, words: str) -> None:
    refused(client.post(PATH, content=content, headers={"content-type": "application/json"}), 400, words)


def test_other_bad_requests(client: TestClient) -> None:
    refused(client.post(PATH, content=json.dumps(FOX)), 400, "Content-Type: application/json")
    refused(client.post(PATH, json={"prompt": "a"}), 400, "'model' is missing", param="model")
    unknown = client.post(PATH, json=FOX | {"model": "c"})
    refused(unknown, 404, "'c'", "graft, a, b, mixed:tiny", param="model", code="model_not_found")
    refused(client.post("/v1/chat/completions", json={}), 404, "There is no POST /v1/chat/completions")
    refused(client.get(PATH), 405, "There is no GET /v1/completions")
    surrogate = client.post(PATH, content='{"\\ud800": 1}', headers={"content-type": "application/json"})
    assert surrogate.status_code == 400


def test_a_huge_body_is_refused(client: TestClient) -> None:
    refused(client.post(PATH, json=FOX | {"prompt": "x" * MAX_BODY}), 413, "over 8,388,608 bytes")


def test_models(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["graft", "a", "b", "mixed:tiny", "mixed:asked"]
    own, *_, asked = listed["data"]
    assert (own["parent"], asked["parent"], asked["owned_by"], asked["object"]) == (None, "graft", "graftlm", "model")
    assert asked["task"]["source_template"] == "Q: {source}"
    assert client.get("/v1/models/mixed:asked").json() == asked
    refused(client.get("/v1/models/c"), 404, "'c'", param="model", code="model_not_found")


def test_keys(engine: Engine) -> None:
    client = TestClient(create_app(engine, ["first", "sécond"]))
    assert client.get("/health").status_code == 200
    for header in (None, "Bearer wrong", "Bearer ", "first", "Basic first", "Bearer first2"):
        response = client.get("/v1/models", headers={"authorization": header} if header else {})
        refused(response, 401, "Authorization: Bearer KEY", code="invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    # The key comes first: nobody else learns whether a body would do.
    refused(client.post(PATH, content=b"{nope"), 401, "key", code="invalid_api_key")
    assert client.get("/v1/models", headers={"authorization": "Bearer first"}).status_code == 200
    assert client.get("/v1/models", headers={"authorization": "bearer sécond".encode()}).status_code == 200


def test_task_encoders_come_and_go(client: TestClient, encoders: dict[str, Path], expect: Expect) -> None:
    ask = FOX | {"model": "new"}
    for name in ("a", "b"):
        added = client.post("/v1/task_encoders", json={"name": "new", "path": str(encoders[name])})
        assert [card["id"] for card in added.json()["data"]] == ["new"]
        assert client.post(PATH, json=ask).json()["choices"][0]["text"] == expect(name, "the fox")
    assert client.delete("/v1/task_encoders/new").json()["deleted"] is True
    refused(client.post(PATH, json=ask), 404, "'new'", param="model", code="model_not_found")
    refused(client.delete("/v1/task_encoders/new"), 404, "no task encoder 'new'", param="name")
    refused(client.delete("/v1/task_encoders/graft"), 404, "no task encoder 'graft'", param="name")
    missing = client.post("/v1/task_encoders", json={"name": "new", "path": str(encoders["a"].parent)})
    refused(missing, 400, "not a task encoder")
    refused(client.post("/v1/task_encoders", json={"name": "n"}), 400, "'path' is missing", param="path")


def test_changes_are_off_unless_allowed(engine: Engine, encoders: dict[str, Path]) -> None:
    client = TestClient(create_app(engine))
    added = client.post("/v1/task_encoders", json={"name": "new", "path": str(encoders["a"])})
    refused(added, 403, "--allow-task-encoder-changes")
    refused(client.delete("/v1/task_encoders/a"), 403, "--allow-task-encoder-changes")
    assert len(engine.all_served()) == 5


def test_a_failing_batch(
    client: TestClient, model: GraftForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = model.forward
    steps = 0

    def breaking(**given: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > 4:
            raise ZeroDivisionError
        return forward(**given)

    monkeypatch.setattr(model, "forward", breaking)
    *pieces, last = events(client.post(PATH, json=FOX | {"stream": True}))
    assert pieces
    assert last["error"]["type"] == "server_error"
    refused(client.post(PATH, json=FOX), 500, "Decoding failed (ZeroDivisionError)")
    monkeypatch.undo()
    assert client.post(PATH, json=FOX).status_code == 200


def test_a_stream_that_fails_for_no_known_reason(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("graftlm.data.tokenizers.Tokenizers.decode", broken)
    [only] = events(client.post(PATH, json=FOX | {"stream": True}))
    assert "its log says why" in only["error"]["message"]
    assert "secret" in caplog.text


def test_an_error_that_is_not_for_clients(client: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(engine, "submit", broken)
    response = client.post(PATH, json=FOX)
    refused(response, 500, "The server failed")
    assert "secret" not in response.text


def test_a_full_queue_and_a_closed_engine(make_engine: MakeEngine) -> None:
    engine = make_engine(max_waiting=2)
    client = TestClient(create_app(engine))
    refused(client.post(PATH, json=FOX | {"n": 3}), 400, "3 targets and at most 2")
    assert client.get("/health").json() == {"status": "ok"}
    engine.close()
    response = client.post(PATH, json=FOX)
    refused(response, 503, "shutting down")
    assert response.headers["retry-after"] == "1"
    health = client.get("/health")
    assert (health.status_code, health.json()) == (503, {"status": "stopped"})
