"""What a client asks for, and what it gets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from graftlm.errors import RequestError

FinishReason = Literal["stop", "length"]

COOLEST, HOTTEST = 0.01, 2.0
"""Temperatures between which sampling is well defined in single precision and still about the model."""
MAX_STOPS = 4


@dataclass(frozen=True)
class Request:
    """One source for one task. Raises: RequestError for settings that cannot work."""

    prompt: str
    model: str
    """Name of the task encoder."""
    max_tokens: int | None = None
    """Longest target in tokens; None is the task's own."""
    temperature: float = 0.0
    """0 decodes greedily."""
    top_p: float = 1.0
    seed: int | None = None
    """None samples differently every time."""
    stop: tuple[str, ...] = ()
    """The target ends before the first of these."""
    index: int = 0
    """Place among the requests of one seed, which are sampled apart from each other by it."""

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        if not self.prompt.strip():
            raise RequestError("The prompt is empty; give it some text.", param="prompt")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise RequestError(f"max_tokens is {self.max_tokens}; it must be at least 1.", param="max_tokens")
        if not (self.temperature == 0 or COOLEST <= self.temperature <= HOTTEST):
            raise RequestError(
                f"temperature is {self.temperature}; it must be 0, which is greedy, or {COOLEST} to {HOTTEST:g}.",
                param="temperature",
            )
        if math.isnan(self.top_p) or not 0 < self.top_p <= 1:
            raise RequestError(f"top_p is {self.top_p}; it must be above 0 and at most 1.", param="top_p")
        if len(self.stop) > MAX_STOPS:
            raise RequestError(f"stop holds {len(self.stop)} texts; give at most {MAX_STOPS}.", param="stop")
        for text in self.stop:
            _check_text("stop", text)
            if not text:
                raise RequestError("stop holds an empty text, which would end every target at once.", param="stop")


@dataclass(frozen=True)
class Completion:
    """A finished target."""

    text: str
    finish_reason: FinishReason
    """`stop`: the model or a stop text ended it; `length`: max_tokens did."""
    prompt_tokens: int
    completion_tokens: int
    """All that were decoded, the token that ends a target included."""


def _check_text(field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair, which no tokenizer accepts.
        raise RequestError(f"{field} holds half of a surrogate pair; repair the text.", param=field) from error
