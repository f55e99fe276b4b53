"""A progress bar with loss, rate and remaining time for transformers' Trainer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def say(console: Console, text: str) -> None:
    """A line as it is: no markup, no colours, no breaks."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class ProgressBar(TrainerCallback):
    """Shows update, loss, target tokens per second and remaining time; one line per validation stays on the screen."""

    def __init__(self, title: str, console: Console, tokens: Sequence[int]) -> None:
        """`tokens` are the target tokens of each update of the whole run."""
        self._console = console
        self._tokens = [0, *accumulate(tokens)]
        self._bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._step = self._first = 0
        self._start = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._start = time.perf_counter()
        self._step = self._first = state.global_step
        self._task = self._bar.add_task("train", total=state.max_steps, completed=self._first, state="")
        self._bar.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._step = state.global_step
            text = f"loss {logs['loss']:.3f} · {self.rate():,.0f} tokens/s"
            self._bar.update(self._task, completed=self._step, state=text)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def rate(self) -> float:
        """Target tokens per second since training began or was resumed, validation included."""
        return (self._tokens[self._step] - self._tokens[self._first]) / (time.perf_counter() - self._start)

    def say(self, text: str) -> None:
        """A line above the bar; it stays."""
        say(self._console, text)

    def validated(self, entry: dict[str, Any]) -> None:
        """Tell of an entry of History.validation, with the time that is left at the rate so far."""
        total = len(self._tokens) - 1
        passed = time.perf_counter() - self._start
        left = passed * (total - self._step) / max(1, self._step - self._first)
        parts = [f"update {entry['step']:,} of {total:,}", f"validation loss {entry['loss']:.3f}"]
        if len(entry["tasks"]) > 1:
            parts.append(", ".join(f"{name} {loss:.3f}" for name, loss in entry["tasks"].items()))
        if entry["source_gain"] is not None:
            parts.append(f"source gain {entry['source_gain']:.3f}")
        parts += [f"{self.rate():,.0f} tokens/s", f"{int(left) // 60}:{int(left) % 60:02d} left"]
        self.say(" · ".join(parts))

    def close(self) -> None:
        """Take the bar off the screen; safe to call more than once."""
        self._bar.stop()
