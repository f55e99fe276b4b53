"""The queue: first come, first served, and nobody is forgotten."""

import threading
import time

import pytest

import tiny
from graftlm.errors import RequestError
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.scheduler import Scheduler
from graftlm.serving.sequence import Sequence
from graftlm.serving.text_stream import TextStream


@pytest.fixture
def waiting(model: GraftForConditionalGeneration) -> list[Sequence]:
    return [
        Sequence(
            encoder=model.own_task_encoder,
            source_ids=[tiny.BOS, i],
            max_tokens=1,
            stream=TextStream(str),
        )
        for i in range(5)
    ]


def test_batches_are_in_order_and_bounded(waiting: list[Sequence]) -> None:
    scheduler = Scheduler(max_batch=2)
    scheduler.put(waiting[:3])
    scheduler.put(waiting[3:])
    assert [scheduler.next_batch() for _ in range(3)] == [waiting[:2], waiting[2:4], waiting[4:]]


def test_requests_sent_together_decode_together(waiting: list[Sequence]) -> None:
    scheduler = Scheduler(max_batch=8)
    batches: list[list[Sequence]] = []
    taker = threading.Thread(target=lambda: batches.append(scheduler.next_batch()))
    taker.start()
    for sequence in waiting:
        scheduler.put([sequence])
    taker.join()
    assert batches == [waiting]


def test_a_full_batch_does_not_wait(waiting: list[Sequence], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftlm.serving.scheduler.GATHER_SECONDS", 60)
    scheduler = Scheduler(max_batch=5)
    scheduler.put(waiting)
    start = time.monotonic()
    assert scheduler.next_batch() == waiting
    assert time.monotonic() - start < 5


def test_cancelled_sequences_are_skipped_and_free_their_place(waiting: list[Sequence]) -> None:
    scheduler = Scheduler(max_batch=8, max_waiting=2)
    scheduler.put(waiting[:2])
    with pytest.raises(RequestError, match="2 requests are waiting and at most 2 may") as refused:
        scheduler.put(waiting[2:3])
    assert (refused.value.status, refused.value.code) == (503, "overloaded")
    waiting[0].future.cancel()
    scheduler.put(waiting[2:3])
    assert scheduler.next_batch() == waiting[1:3]


def test_what_can_never_wait_is_refused_for_good(waiting: list[Sequence]) -> None:
    scheduler = Scheduler(max_batch=8, max_waiting=4)
    with pytest.raises(RequestError, match="5 targets and at most 4") as refused:
        scheduler.put(waiting)
    assert refused.value.status == 400
    scheduler.put(waiting[:4])
    assert scheduler.next_batch() == waiting[:4]


def test_closing_refuses_new_ones_and_hands_out_the_rest(waiting: list[Sequence]) -> None:
    scheduler = Scheduler(max_batch=2)
    scheduler.put(waiting[:3])
    scheduler.close()
    with pytest.raises(RequestError, match="shutting down") as refused:
        scheduler.put(waiting[3:])
    assert refused.value.status == 503
    assert [scheduler.next_batch() for _ in range(3)] == [waiting[:2], waiting[2:3], []]


def test_closing_wakes_a_waiting_engine() -> None:
    scheduler = Scheduler(max_batch=2)
    batches: list[list[Sequence]] = []
    taker = threading.Thread(target=lambda: batches.append(scheduler.next_batch()))
    taker.start()
    scheduler.close()
    taker.join(timeout=5)
    assert batches == [[]]
