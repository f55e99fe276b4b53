"""graftlm adapt: a language model in, an encoder–decoder folder out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlm.cli.common import changes
from graftlm.errors import ConfigError

if TYPE_CHECKING:
    from graftlm.model.config import BridgeConfig

AddSentinels = Annotated[
    int | None,
    typer.Option(
        help="Give the tokenizer so many more sentinels for span corruption and ul2, and the tables rows for them; "
        "not with recipe lossless.",
        min=1,
    ),
]


def adapt(
    source: Annotated[
        str, typer.Argument(help="Language model or encoder-decoder: a folder, a hub name, or embedded-lm.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the graft.")],
    recipe: Annotated[
        str | None, typer.Option(help="How to join encoder and decoder: lossless (default), t5gemma or t5gemma2.")
    ] = None,
    encoder_from: Annotated[str | None, typer.Option(help="Another model for the encoder (t5gemma only).")] = None,
    bridge: Annotated[
        str | None,
        typer.Option(
            help="What each decoder layer reads, in the place of the recipe's bridge, or of that of the graft or "
            "encoder-decoder SOURCE: last, aligned, map, scalar, linear, gated or joined."
        ),
    ] = None,
    bridge_init: Annotated[
        str | None,
        typer.Option(help="How it begins: last, gca, last+gca, aligned, uniform or random; else as suits its kind."),
    ] = None,
    bridge_option: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="Another field of its config, such as rank=64 or states=[2,4,6]."),
    ] = None,
    cross_attention: Annotated[
        str | None,
        typer.Option(
            help="How cross-attention begins with recipe t5gemma: copy of self-attention (default with one model), "
            "random (default with two), or zero_out: adding nothing."
        ),
    ] = None,
    add_sentinels: AddSentinels = None,
    seed: Annotated[int, typer.Option(help="Seed of tensors that no model provides.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Turn a language model into an encoder-decoder."""
    from graftlm.adaptation.adapt import REPORT, adapt_to_folder

    start = time.perf_counter()
    report = adapt_to_folder(
        source,
        out,
        encoder_from=encoder_from,
        recipe=recipe,
        bridge=_bridge(bridge, bridge_option or []),
        bridge_init=bridge_init,
        cross_attention=cross_attention,
        seed=seed,
        add_sentinels=add_sentinels,
    )
    counts = report["parameters"]
    made = f"{report['recipe']} graft of {source}" if report["recipe"] else f"{source} as a graft"
    typer.echo(
        f"{out}: {made}, {counts['stored']:,} parameters "
        f"({counts['copied']:,} copied, {counts['fresh']:,} fresh) in {time.perf_counter() - start:.1f} s; "
        f"{REPORT} says which tensor came from where."
    )


def _bridge(kind: str | None, options: list[str]) -> BridgeConfig | None:
    """Config of the bridge that was asked for."""
    from graftlm.model.config import BridgeConfig

    if kind is None and options:
        raise ConfigError("--bridge-option belongs to a bridge; give its kind with --bridge too.")
    return None if kind is None else BridgeConfig.from_dict({"kind": kind} | changes(options))
