"""Bodies of requests and responses, and what is said about a body that does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from graftlm.errors import RequestError, meant
from graftlm.serving.encoder_bank import Served
from graftlm.serving.request import Completion, Request

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (),
    "presence_penalty": (0,),
    "suffix": ("",),
}
"""Fields of the API that change nothing at these values, or at null, and are not supported at any other."""


class Body(BaseModel):
    """JSON object in which a field that is unknown or of another type is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Body):
    """What a stream holds beside the text."""

    include_usage: bool = False


class CompletionBody(Body):
    """POST /v1/completions. Null stands for the default everywhere."""

    model: str
    """Name of a task encoder, or of the model itself."""
    prompt: str | list[str]
    """The source, or several."""
    max_tokens: int | None = None
    """Longest target in tokens; by default the task's `max_new_tokens`."""
    temperature: float | None = None
    """0, the default, decodes greedily as the task's evaluation does."""
    top_p: float | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    """Targets per prompt."""
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Not looked at."""
    best_of: Any = None
    echo: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    presence_penalty: Any = None
    suffix: Any = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _texts(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and not prompt:
            raise ValueError("the list is empty; give at least one text")
        if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(isinstance(x, str) for x in prompt)):
            raise ValueError("give a text or a list of texts; token ids are not supported")
        return prompt

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_texts(cls, stop: Any) -> Any:
        if not isinstance(stop, str | None) and not (isinstance(stop, list) and all(isinstance(x, str) for x in stop)):
            raise ValueError("give a text or a list of texts")
        return stop

    @field_validator(*NEUTRAL)
    @classmethod
    def _neutral(cls, value: Any, info: Any) -> Any:
        if value is not None and value not in NEUTRAL[info.field_name]:
            raise ValueError("this is not supported; leave it out")
        return value

    @model_validator(mode="after")
    def _options_are_used(self) -> CompletionBody:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    def requests(self) -> list[Request]:
        """One request per choice: every prompt `n` times, in the order of the choices.

        Raises: RequestError for values out of range.
        """
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [
            Request(
                prompt=prompt,
                model=self.model,
                max_tokens=self.max_tokens,
                temperature=0.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
                seed=self.seed,
                stop=tuple(stop),
                index=index,
            )
            for index, prompt in enumerate(prompt for prompt in prompts for _ in range(self.n or 1))
        ]


class TaskEncoderBody(Body):
    """POST /v1/task_encoders."""

    name: str
    path: str
    """Folder on the server."""


def choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    """One of a completion's choices, or a piece of it."""
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def usage(completions: Sequence[Completion], n: int) -> dict[str, int]:
    """Tokens read and written; a prompt with `n` targets counts once."""
    prompt = sum(completion.prompt_tokens for completion in completions[::n])
    written = sum(completion.completion_tokens for completion in completions)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def model_card(served: Served, parent: str) -> dict[str, Any]:
    """An entry of GET /v1/models; `task` is an extension, the settings that the encoder was tuned with."""
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "graftlm",
        "parent": None if served.name == parent else parent,
        "task": served.task.settings(),
    }


def body_error(errors: Sequence[Any]) -> RequestError:
    """What to say about a body that pydantic refused: its first problem, in one sentence."""
    first = errors[0]
    field = ".".join(str(part) for part in first["loc"][1:2])
    if first["type"] == "json_invalid":
        return RequestError("The body is not valid JSON; correct it.")
    if not field:
        problem = first["msg"].removeprefix("Value error, ")
        if first["type"] in ("model_attributes_type", "model_type", "dict_type", "missing"):
            problem = "The body must be a JSON object, with the header Content-Type: application/json"
        return RequestError(f"{problem}.")
    if first["type"] == "missing":
        return RequestError(f"The field {field!r} is missing; add it.", param=field)
    if first["type"] == "extra_forbidden":
        name = ".".join(map(str, first["loc"][1:]))
        hint = meant(name, CompletionBody.model_fields, "leave it out.")
        return RequestError(f"There is no field {name!r}; {hint}", param=name, code="unknown_parameter")
    reason = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return RequestError(f"{field}: {reason}.", param=field)
