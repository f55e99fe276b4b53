"""From requests to sequences: everything that can be wrong with one is found here, before it waits."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from transformers import LogitsProcessorList

from graftlm.data import template
from graftlm.data.tokenizers import Tokenizers
from graftlm.errors import RequestError, TaskError
from graftlm.generation.constraints import constraints
from graftlm.generation.sampling import row_seed, sampler
from graftlm.generation.text import stop_ids
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.encoder_bank import Served
from graftlm.serving.request import Request
from graftlm.serving.sequence import Sequence
from graftlm.serving.text_stream import TextStream


class Intake:
    """Tokenises and checks requests for a model."""

    def __init__(self, model: GraftForConditionalGeneration, tokenizers: Tokenizers) -> None:
        self._model = model
        self._tokenizers = tokenizers
        self._positions: int = model.config.max_position_embeddings
        # A tokenizer drops its stored truncation on first use, which it cannot do while another thread uses it.
        tokenizers.source("")

    def sequence(self, request: Request, served: Served, on_text: Callable[[str], None] | None = None) -> Sequence:
        """A sequence to decode. Raises: RequestError for a prompt that is empty or leaves no room for its target."""
        max_tokens = served.task.max_new_tokens if request.max_tokens is None else request.max_tokens
        return Sequence(
            encoder=served.encoder,
            source_ids=self._source(request.prompt, served, max_tokens),
            max_tokens=max_tokens,
            stream=TextStream(self._tokenizers.decode, request.stop),
            processors=self._processors(request, max_tokens),
            on_text=on_text,
        )

    def _processors(self, request: Request, max_tokens: int) -> LogitsProcessorList:
        """What the model's own settings force and forbid, then the noise of a sampled target."""
        model = self._model
        ends = stop_ids(model, self._tokenizers)
        processors = constraints(model.generation_config, ends, max_tokens, str(model.device))
        if request.temperature > 0:
            seed = secrets.randbits(64) if request.seed is None else request.seed % 2**64
            processors += sampler([row_seed(seed, request.index)], request.temperature, request.top_p)
        return processors

    def _source(self, prompt: str, served: Served, max_tokens: int) -> list[int]:
        if max_tokens >= self._positions:
            raise RequestError(
                f"max_tokens is {max_tokens}, and the model has {self._positions} positions for source and target "
                f"together; give at most {self._positions - 1}.",
                param="max_tokens",
            )
        task = served.task.model_copy(update={"max_new_tokens": max_tokens})
        limit = task.source_limit(self._positions, self._model.config.source_positions)
        text = template.render(served.task.source_template, {"source": prompt})
        try:
            ids = self._tokenizers.encode_source(text, name="The prompt")
        except TaskError as error:
            raise RequestError(str(error), param="prompt") from error
        if len(ids) <= limit or served.task.truncate:
            return self._tokenizers.cut_source(ids, limit)
        raise RequestError(
            f"The prompt has {len(ids)} tokens and the limit is {limit} beside {max_tokens} of target; shorten it"
            + (" or lower max_tokens." if limit != served.task.max_source_tokens else "."),
            param="prompt",
            code="context_length_exceeded",
        )
