"""The engine: takes requests from any thread, and decodes them in batches in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Literal, Self

from transformers import PreTrainedTokenizerBase

from graftlm.data.tokenizers import Tokenizers, tokenizers_of
from graftlm.errors import GraftError, ServingError
from graftlm.families.locate import locate
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.serving.encoder_bank import EncoderBank, Served
from graftlm.serving.intake import Intake
from graftlm.serving.request import Completion, Request
from graftlm.serving.runner import Runner
from graftlm.serving.scheduler import Scheduler
from graftlm.serving.sequence import Sequence

log = logging.getLogger(__name__)


class Engine:
    """Serves a graft and its task encoders; close it, or use it in a `with` block.

    `task_encoders` maps names to folders; the model's own encoder is served as `name`, by default its folder's. Up to
    `max_batch` requests decode together, and up to `max_waiting` wait, None for any number.
    Raises: ServingError for names or tasks that cannot be served, CheckpointError for an encoder that does not fit.
    """

    def __init__(
        self,
        model: GraftForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase | Tokenizers | None = None,
        *,
        task_encoders: Mapping[str, str | Path] | None = None,
        name: str | None = None,
        max_batch: int = 32,
        max_waiting: int | None = None,
    ) -> None:
        tokenizers = _tokenizers_of(model) if tokenizer is None else Tokenizers.of(tokenizer, model.config)
        self._bank = EncoderBank(
            model, name or (Path(model.name_or_path).resolve().name if model.name_or_path else "graft")
        )
        for encoder, folder in (task_encoders or {}).items():
            self.add_task_encoder(folder, encoder)
        self._intake = Intake(model, tokenizers)
        self._scheduler = Scheduler(max_batch, max_waiting)
        self._runner = Runner(model, tokenizers)
        self._thread = threading.Thread(target=self._work, name="graftlm-engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> Literal["ok", "draining", "stopped"]:
        """Whether requests are answered, only those accepted before, or none."""
        if not self._thread.is_alive():
            return "stopped"
        return "draining" if self._scheduler.closed else "ok"

    @property
    def name(self) -> str:
        """What the model's own encoder is called."""
        return self._bank.own_name

    def served(self, name: str) -> Served:
        """What is served as `name`. Raises: RequestError for an unknown name."""
        return self._bank.get(name)

    def all_served(self) -> list[Served]:
        """Everything that requests may name as their model."""
        return self._bank.all()

    def add_task_encoder(self, folder: str | Path, name: str) -> list[Served]:
        """Serve a task encoder; one that has the name already is replaced for requests that come later.

        Raises: ServingError for a name or a task that cannot be served, CheckpointError for one that does not fit.
        """
        added = self._bank.add(folder, name)
        for served in added:
            if served.task.num_beams > 1:
                log.warning("%s asks for %d beams; it is served greedily.", served.name, served.task.num_beams)
        return added

    def remove_task_encoder(self, name: str) -> None:
        """Refuse further requests for a task encoder; those accepted are still answered.

        Raises: RequestError for an unknown name.
        """
        self._bank.remove(name)

    def submit(
        self, requests: Iterable[Request], on_text: Callable[[int, str], None] | None = None
    ) -> list[Future[Completion]]:
        """Accept all requests, or none; each future gives its completion, and cancelling it frees its place.

        `on_text` is called in the engine's thread with a request's index and every new piece of its text.
        Raises: RequestError for a request that cannot be answered, or when too many wait.
        """
        sequences = [
            self._intake.sequence(
                request, self._bank.get(request.model), None if on_text is None else partial(on_text, index)
            )
            for index, request in enumerate(requests)
        ]
        self._scheduler.put(sequences)
        return [sequence.future for sequence in sequences]

    def generate(self, requests: Iterable[Request]) -> list[Completion]:
        """The completions of all requests, in their order. Raises: as `submit`."""
        return [future.result() for future in self.submit(requests)]

    def close(self) -> None:
        """Refuse new requests, answer those accepted, and stop."""
        self._scheduler.close()
        self._thread.join()

    def _work(self) -> None:
        batch: list[Sequence] = []
        try:
            while batch := self._scheduler.next_batch():
                self._decode(batch)
        finally:
            # Whatever ended this thread, nobody is left waiting for it.
            self._scheduler.close()
            while batch:
                _fail(batch, ServingError("The engine has stopped; restart the server."))
                batch = self._scheduler.next_batch()

    def _decode(self, batch: list[Sequence]) -> None:
        try:
            self._runner.run(batch)
        except Exception as error:
            log.exception("A batch of %d requests failed.", len(batch))
            _fail(batch, ServingError(f"Decoding failed ({type(error).__name__}); the server's log says why."))


def _fail(batch: list[Sequence], error: Exception) -> None:
    for sequence in batch:
        sequence.fail(error)


def _tokenizers_of(model: GraftForConditionalGeneration) -> Tokenizers:
    if not model.name_or_path:
        raise ServingError("The model was not loaded from a folder; give the engine its tokenizer.")
    try:
        return tokenizers_of(locate(model.name_or_path), model.config)
    except GraftError as error:
        raise ServingError(f"{error} Give the engine its tokenizer.") from error
