"""graftlm adapt: a language model in, an encoder–decoder folder out."""

import time
from pathlib import Path
from typing import Annotated

import typer


def adapt(
    source: Annotated[
        str, typer.Argument(help="Language model or encoder-decoder: a folder, a hub name, or embedded-lm.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the graft.")],
    recipe: Annotated[
        str | None, typer.Option(help="How to join encoder and decoder: lossless (default), t5gemma or t5gemma2.")
    ] = None,
    encoder_from: Annotated[str | None, typer.Option(help="Another model for the encoder (t5gemma only).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of tensors that no model provides.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Turn a language model into an encoder-decoder."""
    from graftlm.adaptation.adapt import REPORT, adapt_to_folder

    start = time.perf_counter()
    report = adapt_to_folder(source, out, encoder_from=encoder_from, recipe=recipe, seed=seed)
    counts = report["parameters"]
    made = f"{report['recipe']} graft of {source}" if report["recipe"] else f"{source} as a graft"
    typer.echo(
        f"{out}: {made}, {counts['stored']:,} parameters "
        f"({counts['copied']:,} copied, {counts['fresh']:,} fresh) in {time.perf_counter() - start:.1f} s; "
        f"{REPORT} says which tensor came from where."
    )
