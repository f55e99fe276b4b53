"""The options of `graftlm adapt`."""

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[str, typer.Argument(help="Language model or encoder-decoder: a folder, a hub name, or embedded-lm.")]
Out = Annotated[Path, typer.Option(help="New folder for the graft.")]
Recipe = Annotated[
    str | None, typer.Option(help="How to join encoder and decoder: lossless (default), t5gemma or t5gemma2.")
]
EncoderFrom = Annotated[str | None, typer.Option(help="Another model for the encoder (t5gemma only).")]
Bridge = Annotated[
    str | None,
    typer.Option(
        help="What each decoder layer reads, in the place of the recipe's bridge, or of that of the graft or "
        "encoder-decoder SOURCE: last, aligned, map, scalar, linear, gated or joined."
    ),
]
BridgeInit = Annotated[
    str | None,
    typer.Option(help="How it begins: last, gca, last+gca, aligned, uniform or random; else as suits its kind."),
]
BridgeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD=VALUE", help="Another field of its config, such as rank=64 or states=[2,4,6]."),
]
CrossAttention = Annotated[
    str | None,
    typer.Option(
        help="How cross-attention begins with recipe t5gemma: copy of self-attention (default with one model), "
        "random (default with two), or zero_out: adding nothing."
    ),
]
EncoderLayers = Annotated[
    str | None,
    typer.Option(
        metavar="LAYERS",
        help="Layers that the encoder takes of its model, numbered from 0: 0-11, or 0,4,8, or 0-22:2 for every second "
        "one; all by default. Not with recipe lossless.",
    ),
]
DecoderLayers = Annotated[str | None, typer.Option(metavar="LAYERS", help="The same for the decoder.")]
ExpandKV = Annotated[
    str | None,
    typer.Option(
        help="Give each query head a copy of the key/value head that it shares with others, in the encoder, the "
        "decoder or both: the same function, with more to train."
    ),
]
ShareEmbeddings = Annotated[
    bool | None,
    typer.Option("--share-embeddings/--own-embeddings", help="Let the encoder read the decoder's table, or a copy."),
]
TieWordEmbeddings = Annotated[
    bool | None,
    typer.Option(
        "--tie-word-embeddings/--untie-word-embeddings",
        help="Take the decoder's table for the output head, or a matrix of its own.",
    ),
]
AddSentinels = Annotated[
    int | None,
    typer.Option(
        help="Give the tokenizer so many more sentinels for span corruption and ul2, and the tables rows for them; "
        "not with recipe lossless.",
        min=1,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of tensors that no model provides.", min=0, max=2**32 - 1)]
