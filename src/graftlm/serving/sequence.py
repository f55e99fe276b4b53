"""A request on its way through the engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from transformers import LogitsProcessorList

from graftlm.model.task_encoder import TaskEncoder
from graftlm.serving.request import Completion, FinishReason
from graftlm.serving.text_stream import TextStream


@dataclass(eq=False, kw_only=True)
class Sequence:
    """One source and what has been decoded of its target.

    It holds its task encoder, which therefore outlives being removed or replaced until the target is written.
    """

    encoder: TaskEncoder
    source_ids: list[int]
    max_tokens: int
    stream: TextStream
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    """What changes its scores before the largest is taken; empty is greedy and free."""
    on_text: Callable[[str], None] | None = None
    """Called with every piece of text as soon as it is settled, in the engine's thread."""
    future: Future[Completion] = field(default_factory=Future)
    """Stays pending until the target is written, so that it can be cancelled at any time."""
    token_ids: list[int] = field(default_factory=list)
    text: str = ""

    @property
    def done(self) -> bool:
        """Finished, failed or cancelled: nothing more is to be decoded for it."""
        return self.future.done()

    def push(self, token: int, *, is_end: bool) -> None:
        """Take in the next token of the target; `is_end` says that the model ends it there."""
        self.token_ids.append(token)
        piece = self.stream.push(token)
        reason: FinishReason | None = None
        if is_end or self.stream.stopped:
            reason = "stop"
        elif len(self.token_ids) == self.max_tokens:
            reason = "length"
        if reason is not None:
            piece += self.stream.flush()
        self.text += piece
        if piece and self.on_text is not None:
            self.on_text(piece)
        if reason is not None and self._claim():
            self.future.set_result(Completion(self.text, reason, len(self.source_ids), len(self.token_ids)))

    def fail(self, error: Exception) -> None:
        """End it with an error, unless it has ended already."""
        if not self.done and self._claim():
            self.future.set_exception(error)

    def _claim(self) -> bool:
        # Decides the race with a client that cancels at this very moment.
        return self.future.set_running_or_notify_cancel()
