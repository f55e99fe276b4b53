"""graftlm new: an encoder–decoder of a given shape with random weights."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def new(
    shape: Annotated[
        str,
        typer.Argument(
            help="t5gemma-s, -b, -l or -xl; t5gemma2-270m, -1b or -4b; or a YAML file with fields of transformers' "
            "config of an encoder-decoder."
        ),
    ],
    tokenizer: Annotated[str, typer.Option(help="Model whose tokenizer it gets: a folder, a hub name or embedded-lm.")],
    out: Annotated[Path, typer.Option(help="New folder for the graft.")],
    seed: Annotated[int, typer.Option(help="Seed of the weights.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Make an encoder-decoder of a given shape with random weights, to train it from scratch."""
    from graftlm.adaptation.scratch import new_to_folder

    start = time.perf_counter()
    parameters = new_to_folder(shape, out, tokenizer=tokenizer, seed=seed)["parameters"]["stored"]
    typer.echo(f"{out}: {shape}, {parameters:,} random parameters in {time.perf_counter() - start:.1f} s.")
