"""The engine: every request gets what it would get alone, whatever happens around it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from small import MAX_NEW_TOKENS, Expect, MakeEngine, tiny_graft, write_encoder

import graftlm
import tiny
from graftlm.adaptation.task_encoder import load_task_encoder
from graftlm.data.task import Task
from graftlm.errors import CheckpointError, RequestError, ServingError
from graftlm.generation.text import generate_texts
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.engine import Engine
from graftlm.serving.request import Request

SOURCES = ["the fox", "the quick brown fox jumps over the lazy dog", "a", "lazy dogs sleep", "né 日本"]
NAMES = ["a", "b", "graft", "mixed:tiny"]
SEEDED = {"temperature": 0.8, "top_p": 0.9, "seed": 3}


class Gate:
    """Holds a model's forward passes back until it is opened, and counts them."""

    def __init__(self, model: GraftForConditionalGeneration, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.steps = 0
        self._forward = model.forward
        monkeypatch.setattr(model, "forward", self._pass)

    def _pass(self, *args: Any, **kwargs: Any) -> Any:
        self.entered.set()
        assert self.opened.wait(10)
        self.steps += 1
        return self._forward(*args, **kwargs)


@pytest.fixture
def gate(model: GraftForConditionalGeneration, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(model, monkeypatch)


def test_requests_of_different_tasks_decode_together_as_each_alone(
    engine: Engine, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    run = engine._runner.run
    monkeypatch.setattr(engine._runner, "run", lambda batch: (batches.append(len(batch)), run(batch)))
    pairs = [(name, source) for source in SOURCES for name in NAMES]
    completions = engine.generate([Request(source, name, max_tokens=MAX_NEW_TOKENS) for name, source in pairs])
    texts = [completion.text for completion in completions]
    assert texts == [expect(name.partition(":")[0], source) for name, source in pairs]
    assert len(set(texts)) > len(pairs) // 2
    assert batches == [len(pairs)]


@pytest.mark.parametrize("form", ["merged-bos", "separate-source", "separate-bos"])
def test_other_forms_of_grafts(form: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "e", 5, Task(name="t", max_new_tokens=8), form=form)
    tuned = tiny_graft(form)
    load_task_encoder(tuned, folder)
    with Engine(tiny_graft(form), tiny.tokenizer(), task_encoders={"e": folder}) as engine:
        for name, alone in (("e", tuned), ("graft", tiny_graft(form))):
            texts = [done.text for done in engine.generate([Request(s, name, max_tokens=8) for s in SOURCES])]
            assert texts == generate_texts(alone, tiny.tokenizer(), SOURCES, max_new_tokens=8)


def test_pieces_are_the_text(engine: Engine, expect: Expect) -> None:
    pieces: dict[int, list[str]] = {i: [] for i in range(len(SOURCES))}
    futures = engine.submit([Request(s, "a") for s in SOURCES], lambda i, piece: pieces[i].append(piece))
    for i, (source, future) in enumerate(zip(SOURCES, futures, strict=True)):
        assert future.result().text == "".join(pieces[i]) == expect("a", source)
    assert max(map(len, pieces.values())) > 3


def test_sampling_depends_on_the_seed_and_on_nothing_beside_it(engine: Engine, expect: Expect) -> None:
    request = Request("the fox", "a", **SEEDED)
    [alone] = engine.generate([request])
    others = [Request(source, name, temperature=1.5) for source in SOURCES for name in NAMES]
    together = engine.generate([*others, request, request])
    assert together[-1] == together[-2] == alone
    assert alone.text == expect("a", "the fox", do_sample=True, **SEEDED)
    assert alone.text != expect("a", "the fox")


def test_requests_of_one_seed_are_sampled_apart(engine: Engine) -> None:
    requests = [Request("the fox", "a", temperature=1.0, seed=1, index=i) for i in range(3)]
    assert len({done.text for done in engine.generate(requests)}) == 3
    unseeded = engine.generate([Request("the fox", "a", temperature=1.0)] * 3)
    assert len({done.text for done in unseeded}) == 3


def test_greedy_and_sampled_rows_go_together(engine: Engine, expect: Expect) -> None:
    requests = [Request("the fox", "a"), Request("the fox", "a", **SEEDED), Request("the fox", "b")]
    texts = [done.text for done in engine.generate(requests)]
    assert texts == [expect("a", "the fox"), expect("a", "the fox", do_sample=True, **SEEDED), expect("b", "the fox")]


def test_reasons_and_counts(engine: Engine, expect: Expect) -> None:
    whole = expect("a", "the fox")
    long, short, stopped = engine.generate(
        [
            Request("the fox", "a"),
            Request("the fox", "a", max_tokens=3),
            Request("the fox", "a", stop=(whole[3:5], "zzz")),
        ]
    )
    assert long.finish_reason == short.finish_reason == "length"
    assert (long.completion_tokens, short.completion_tokens) == (MAX_NEW_TOKENS, 3)
    assert long.prompt_tokens == len(tiny.tokenizer()("the fox")["input_ids"])
    assert short.text == expect("a", "the fox", max_new_tokens=3)
    assert (stopped.text, stopped.finish_reason) == (whole[: whole.index(whole[3:5])], "stop")
    assert stopped.completion_tokens < MAX_NEW_TOKENS


def test_a_target_that_the_model_ends(model: GraftForConditionalGeneration) -> None:
    source = torch.tensor([tiny.tokenizer()("the fox")["input_ids"]])
    ids = model.generate(input_ids=source, max_new_tokens=5, do_sample=False)[0].tolist()
    model.config.eos_token_id = [tiny.EOS, ids[2]]
    with Engine(model, tiny.tokenizer()) as engine:
        [ended] = engine.generate([Request("the fox", "graft", max_tokens=5)])
    assert (ended.finish_reason, ended.completion_tokens) == ("stop", ids.index(ids[2]) + 1)
    assert [ended.text] == generate_texts(model, tiny.tokenizer(), ["the fox"], max_new_tokens=5)


def test_templates_and_lengths_are_the_tasks_own(engine: Engine, expect: Expect) -> None:
    [asked] = engine.generate([Request("the fox", "mixed:asked")])
    assert asked.text == expect("mixed", "Q: the fox", 6)
    assert asked.completion_tokens == 6
    assert [served.name for served in engine.all_served()] == ["graft", "a", "b", "mixed:tiny", "mixed:asked"]
    with pytest.raises(RequestError, match="no model 'mixed'; choose one of graft, a, b, mixed:tiny, mixed:asked"):
        engine.generate([Request("the fox", "mixed")])


@pytest.mark.parametrize("change", ["remove", "swap"])
def test_accepted_requests_keep_their_encoder(
    engine: Engine, gate: Gate, encoders: dict[str, Path], expect: Expect, change: str
) -> None:
    running = engine.submit([Request("the fox", "a")])
    assert gate.entered.wait(10)
    waiting = engine.submit([Request("the fox", "a")])
    if change == "remove":
        engine.remove_task_encoder("a")
        with pytest.raises(RequestError, match="no model 'a'"):
            engine.submit([Request("the fox", "a")])
        later = []
    else:
        engine.add_task_encoder(encoders["b"], "a")
        later = engine.submit([Request("the fox", "a")])
    gate.opened.set()
    assert {future.result(10).text for future in running + waiting} == {expect("a", "the fox")}
    assert [future.result(10).text for future in later] == [expect("b", "the fox")] * len(later)


def test_changes_under_a_stream_of_requests_lose_none(
    engine: Engine, encoders: dict[str, Path], expect: Expect
) -> None:
    changed = threading.Event()

    def client(name: str) -> list[str]:
        texts = []
        while not changed.is_set():
            try:
                texts.append(engine.generate([Request("the fox", name)])[0].text)
            except RequestError as error:
                # Only while it is away may a name be refused, and only before the request is accepted.
                if (error.code, name) != ("model_not_found", "coming"):
                    raise
        return texts

    with ThreadPoolExecutor(3) as clients:
        streams = {name: clients.submit(client, name) for name in ("a", "b", "coming")}
        try:
            for name in "babababa":
                engine.add_task_encoder(encoders[name], "coming")
                engine.add_task_encoder(encoders[name], "a")
                engine.remove_task_encoder("coming")
                # From now on the new one answers, whatever the clients are in the middle of.
                assert engine.generate([Request("the fox", "a")])[0].text == expect(name, "the fox")
        finally:
            changed.set()
        texts = {name: stream.result(20) for name, stream in streams.items()}
    either = {expect("a", "the fox"), expect("b", "the fox")}
    assert texts["a"]
    assert set(texts["a"]) <= either
    assert set(texts["coming"]) <= either
    assert set(texts["b"]) == {expect("b", "the fox")}


def test_a_failure_hits_its_own_batch_only(
    engine: Engine, model: GraftForConditionalGeneration, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", broken)
        futures = engine.submit([Request("the fox", "a"), Request("the fox", "b")])
        for future in futures:
            with pytest.raises(ServingError, match=r"Decoding failed \(ZeroDivisionError\)"):
                future.result(10)
    assert engine.state == "ok"
    assert engine.generate([Request("the fox", "a")])[0].text == expect("a", "the fox")


def test_a_listener_that_fails_ends_its_own_request_only(engine: Engine, expect: Expect) -> None:
    def listener(index: int, piece: str) -> None:
        if index == 0:
            raise ZeroDivisionError

    broken, whole = engine.submit([Request("the fox", "a"), Request("the fox", "a")], listener)
    with pytest.raises(ZeroDivisionError):
        broken.result(10)
    assert whole.result(10).text == expect("a", "the fox")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_dies_leaves_nobody_waiting(
    make_engine: MakeEngine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(max_batch=1)

    def dying(_: object) -> None:
        assert gate.opened.wait(10)
        raise SystemExit

    monkeypatch.setattr(engine._runner, "run", dying)
    futures = engine.submit([Request("the fox", "a")] * 3)
    gate.opened.set()
    for future in futures:
        with pytest.raises(ServingError, match="stopped"):
            future.result(10)
    engine._thread.join(10)
    assert engine.state == "stopped"
    with pytest.raises(RequestError, match="shutting down"):
        engine.submit([Request("the fox", "a")])


def test_closing_answers_what_was_accepted(make_engine: MakeEngine, gate: Gate, expect: Expect) -> None:
    engine = make_engine(max_batch=1)
    futures = engine.submit([Request(source, "a") for source in SOURCES])
    assert gate.entered.wait(10)
    closing = threading.Thread(target=engine.close)
    closing.start()
    while engine.state == "ok":
        time.sleep(0.001)
    assert engine.state == "draining"
    with pytest.raises(RequestError, match="shutting down") as refused:
        engine.submit([Request("the fox", "a")])
    assert refused.value.status == 503
    gate.opened.set()
    closing.join(10)
    assert [future.result(0).text for future in futures] == [expect("a", source) for source in SOURCES]
    assert engine.state == "stopped"


def test_cancelling_ends_a_batch_early(engine: Engine, gate: Gate) -> None:
    pieces: list[str] = []
    [future] = engine.submit([Request("the fox", "a", max_tokens=40)], lambda _, piece: pieces.append(piece))
    assert gate.entered.wait(10)
    assert future.cancel()
    gate.opened.set()
    [after] = engine.generate([Request("the fox", "a", max_tokens=2)])
    assert after.completion_tokens == 2
    assert gate.steps == 3
    assert pieces == []
    with pytest.raises(CancelledError):
        future.result()


def test_all_of_a_list_is_accepted_or_none(make_engine: MakeEngine, gate: Gate) -> None:
    engine = make_engine(max_waiting=3)
    engine.submit([Request("a", "a")])
    assert gate.entered.wait(10)
    kept = engine.submit([Request("b", "a")] * 2)
    with pytest.raises(RequestError, match="waiting"):
        engine.submit([Request("c", "a")] * 2)
    with pytest.raises(RequestError, match="no model"):
        engine.submit([Request("c", "a"), Request("c", "unknown")])
    kept += engine.submit([Request("d", "a")])
    gate.opened.set()
    assert all(future.result(10).text for future in kept)


def refusals() -> dict[str, tuple[Callable[[], Request], str]]:
    """Requests that cannot be made or answered, and what is said about them."""
    text = "the lazy dog " * 30
    return {
        "empty": (lambda: Request(" ", "a"), "prompt is empty"),
        "surrogate": (lambda: Request("a\ud800", "a"), "surrogate"),
        "no tokens": (lambda: Request("a", "a", max_tokens=0), "max_tokens is 0"),
        "no room": (lambda: Request("a", "a", max_tokens=64), "max_tokens is 64, .* at most 63"),
        "long": (lambda: Request(text, "a"), r"has \d+ tokens and the limit is 54 beside 10 .*lower max_tokens"),
        "temperature": (lambda: Request("a", "a", temperature=-1), "temperature is -1; it must be 0"),
        "cold": (lambda: Request("a", "a", temperature=1e-30), "0.01 to 2"),
        "top_p": (lambda: Request("a", "a", top_p=0), "top_p is 0"),
        "stops": (lambda: Request("a", "a", stop=("x",) * 5), "5 texts"),
        "empty stop": (lambda: Request("a", "a", stop=("",)), "empty text"),
    }


@pytest.mark.parametrize("case", refusals())
def test_bad_requests(engine: Engine, case: str) -> None:
    make, problem = refusals()[case]
    with pytest.raises(RequestError, match=problem) as refused:
        engine.submit([make()])
    assert refused.value.status == 400
    assert refused.value.param is not None


def test_a_task_may_bound_or_cut_its_sources(make_engine: MakeEngine, expect: Expect, tmp_path: Path) -> None:
    for truncate in (False, True):
        task = Task(name="t", max_new_tokens=10, max_source_tokens=5, truncate=truncate)
        write_encoder(tmp_path / str(truncate), 1, task)
    engine = make_engine(task_encoders={"bound": tmp_path / "False", "cut": tmp_path / "True"})
    with pytest.raises(RequestError, match=r"the limit is 5 beside 10 of target; shorten it\."):
        engine.submit([Request("xxxxxxxx", "bound")])
    assert engine.generate([Request("xxxxxxxx", "cut")])[0].text == expect("a", "xxxx")


@pytest.mark.parametrize(
    ("name", "problem"), [("graft", "the name of the model itself"), ("x y", "letters, digits"), ("x:y", "letters")]
)
def test_names_that_cannot_be_served(engine: Engine, encoders: dict[str, Path], name: str, problem: str) -> None:
    with pytest.raises(ServingError, match=problem):
        engine.add_task_encoder(encoders["a"], name)
    with pytest.raises(RequestError, match=r"there are: a, b, mixed"):
        engine.remove_task_encoder(name)


def test_encoders_that_cannot_be_served(
    engine: Engine, model: GraftForConditionalGeneration, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_encoder(tmp_path / "fields", 1, Task(name="t", source_template="{source} in {lang}"))
    with pytest.raises(ServingError, match=r"task t uses \{lang\}, which a prompt does not have"):
        engine.add_task_encoder(tmp_path / "fields", "fields")
    write_encoder(tmp_path / "other", 1, Task(name="t"), form="merged-bos")
    with pytest.raises(CheckpointError):
        engine.add_task_encoder(tmp_path / "other", "other")
    assert len(engine.all_served()) == 5
    assert model.task_encoders == {}
    write_encoder(tmp_path / "beams", 1, Task(name="t", num_beams=4))
    engine.add_task_encoder(tmp_path / "beams", "beams")
    assert "beams asks for 4 beams; it is served greedily" in caplog.text


def test_the_tokenizer_comes_from_the_models_folder(tmp_path: Path, expect: Expect) -> None:
    with pytest.raises(ServingError, match="give the engine its tokenizer"):
        graftlm.Engine(tiny_graft())
    tiny_graft().save_pretrained(tmp_path / "fox")
    loaded = graftlm.load_graft(tmp_path / "fox")
    with pytest.raises(ServingError, match="No tokenizer can be loaded"):
        graftlm.Engine(loaded)
    tiny.tokenizer().save_pretrained(tmp_path / "fox")
    with graftlm.Engine(loaded) as engine:
        [done] = engine.generate([graftlm.Request("the fox", "fox", max_tokens=MAX_NEW_TOKENS)])
    assert done.text == expect("graft", "the fox")
