"""What several verbs need: loading models and talking to the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from graftlm.errors import ConfigError

if TYPE_CHECKING:
    from graftlm.data.tokenizers import Tokenizers
    from graftlm.model.modeling import GraftForConditionalGeneration

MODEL_HELP = "Graft, as graftlm adapt writes it, or an encoder-decoder of a known family: a folder or a hub name."
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
TASK_HELP = "Task file (YAML), or the name of a built-in task such as e2e_nlg."


def progress_console() -> Console:
    """Where progress goes, so that results on standard output can be piped; the first of several processes speaks."""
    return Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


def load(
    model: str, task_encoder: Path | None = None
) -> tuple[GraftForConditionalGeneration, Tokenizers, dict[str, Any] | None]:
    """Model, tokenizers and the manifest of the task encoder, if one is given.

    On a CPU the model computes in fp32, on a GPU in the dtype that it is stored in. Where there are several processes,
    it is left to training to move it to their GPUs.
    """
    import torch
    from transformers.utils import logging

    from graftlm.adaptation.store import load_graft
    from graftlm.adaptation.task_encoder import load_task_encoder
    from graftlm.data.tokenizers import tokenizers_of
    from graftlm.families.locate import locate

    logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    loaded = load_graft(model, dtype=None if on_gpu else torch.float32)
    if on_gpu and "WORLD_SIZE" not in os.environ:
        loaded.to("cuda")  # type: ignore[arg-type]
    manifest = None if task_encoder is None else load_task_encoder(loaded, task_encoder)
    return loaded, tokenizers_of(locate(model), loaded.config), manifest


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output; the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout).print(table)


class Bar:
    """A progress bar on standard error that advances by counts."""

    def __init__(self, title: str) -> None:
        console = progress_console()
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(title, total=None)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)


def changes(texts: Iterable[str]) -> dict[str, Any]:
    """Values of `field=value` texts, as YAML reads them. Raises: ConfigError for a text of another form."""
    values: dict[str, Any] = {}
    for text in texts:
        name, found, value = text.partition("=")
        if not found:
            raise ConfigError(f"{text!r} is no change; write FIELD=VALUE.")
        values[name.strip().replace("-", "_")] = yaml_value(value)
    return values


def yaml_value(text: str) -> Any:
    """What YAML reads in a text. Raises: ConfigError for a text of another form."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} is no value; put it in quotes.") from error
