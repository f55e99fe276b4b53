"""Marian, as the OPUS-MT translators have it. Source: transformers, models/marian."""

from dataclasses import replace

from graftlm.errors import ConversionError
from graftlm.families.bart import POST_NORM, SHARED_TABLE, family, layers, side
from graftlm.families.config_map import Rule, both, given
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import rename


def tables(values: Values) -> Values:
    """One table for both sides and the head; or one for each side, with a head that is tied or not."""
    shared, tied = values["share_encoder_decoder_embeddings"], values["tie_word_embeddings"]
    if shared and not tied:
        raise ConversionError(
            "tie_word_embeddings=False (a table that both sides share must be the head too; set "
            "share_encoder_decoder_embeddings to false for tables of their own)"
        )
    return {"share_embeddings": shared, "tie_word_embeddings": tied}


MARIAN = family(
    "marian",
    "MarianMTModel",
    (
        *side("encoder"),
        *side("decoder", "decoder_vocab_size"),
        *POST_NORM,
        *both((given("absolute_positions", lambda s: "sinusoidal"),)),
        Rule(
            ("share_encoder_decoder_embeddings", "tie_word_embeddings"),
            tables,
            lambda o: {
                "share_encoder_decoder_embeddings": o["share_embeddings"],
                "tie_word_embeddings": o["tie_word_embeddings"],
            },
        ),
        given("decoder_start", lambda s: "bos"),
    ),
    (
        *(replace(rule, when=lambda c: bool(c.share_embeddings)) for rule in SHARED_TABLE),
        *(
            rename(
                f"{{base}}{part}.embed_tokens.weight", f"{part}.embedding.weight", when=lambda c: not c.share_embeddings
            )
            for part in ("encoder", "decoder")
        ),
        *layers("_out_norm"),
    ),
    dropped=("{base}encoder.embed_positions.weight", "{base}decoder.embed_positions.weight"),
)
