"""graftlm adapt: a language model in, an encoder–decoder folder out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from graftlm.cli import adapt_options as options
from graftlm.cli.common import changes
from graftlm.errors import ConfigError

if TYPE_CHECKING:
    from graftlm.model.config import BridgeConfig


def adapt(
    source: options.Source,
    out: options.Out,
    recipe: options.Recipe = None,
    encoder_from: options.EncoderFrom = None,
    encoder_layers: options.EncoderLayers = None,
    decoder_layers: options.DecoderLayers = None,
    expand_kv: options.ExpandKV = None,
    share_embeddings: options.ShareEmbeddings = None,
    tie_word_embeddings: options.TieWordEmbeddings = None,
    bridge: options.Bridge = None,
    bridge_init: options.BridgeInit = None,
    bridge_option: options.BridgeOption = None,
    cross_attention: options.CrossAttention = None,
    add_sentinels: options.AddSentinels = None,
    seed: options.Seed = 0,
) -> None:
    """Turn a language model into an encoder-decoder."""
    from graftlm.adaptation.adapt import REPORT, adapt_to_folder

    start = time.perf_counter()
    report = adapt_to_folder(
        source,
        out,
        encoder_from=encoder_from,
        recipe=recipe,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        expand_kv=expand_kv,
        share_embeddings=share_embeddings,
        tie_word_embeddings=tie_word_embeddings,
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


def _bridge(kind: str | None, fields: list[str]) -> BridgeConfig | None:
    """Config of the bridge that was asked for."""
    from graftlm.model.config import BridgeConfig

    if kind is None and fields:
        raise ConfigError("--bridge-option belongs to a bridge; give its kind with --bridge too.")
    return None if kind is None else BridgeConfig.from_dict({"kind": kind} | changes(fields))
