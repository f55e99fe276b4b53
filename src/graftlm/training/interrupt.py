"""Ctrl-C while training: finish the update that is running, so that what it leaves is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_interrupt(notice: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C only calls `notice` and makes the yielded function true; a second one raises.

    Outside the main thread, where Python has no signals, the function stays false. Processes that are forked inside the
    block take no notice: Ctrl-C reaches them too, and their work is still needed.
    """
    asked, process = threading.Event(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            return
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        notice()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked.is_set
    finally:
        # None stands for a handler that Python did not install.
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
