"""What happens to a training run at one of its updates."""

import os
import signal
from collections.abc import Callable

import pytest

from graftlm.training.history import History


def on_update(patch: pytest.MonkeyPatch, do: Callable[[int], object]) -> None:
    """Call `do` with the number of each update after it."""
    add = History.add_loss

    def note(self: History, at: int, loss: float) -> None:
        add(self, at, loss)
        do(at)

    patch.setattr(History, "add_loss", note)


def press_ctrl_c(patch: pytest.MonkeyPatch, at: int) -> None:
    """Press Ctrl-C during update `at`."""
    on_update(patch, lambda step: os.kill(os.getpid(), signal.SIGINT) if step == at else None)


class Killed(BaseException):
    """Stands for a process that is gone."""


def die(patch: pytest.MonkeyPatch, at: int) -> None:
    """Die right after update `at`, before anything of it can be written."""

    def act(step: int) -> None:
        if step == at:
            raise Killed

    on_update(patch, act)
