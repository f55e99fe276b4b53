"""T5Gemma 2, the text part. Source: transformers, models/t5gemma2 (configuration_t5gemma2.py, modeling_t5gemma2.py)."""

from typing import Any

from graftlm.families.config_map import ConfigMap, Rule, given, ignored, on, pinned, repeated, within
from graftlm.families.gemma2 import WINDOW
from graftlm.families.gemma3 import GEMMA3_STACK
from graftlm.families.llama import SIZES
from graftlm.families.spec import Family
from graftlm.families.stock_config import Values
from graftlm.families.t5gemma import DROPOUT_ABOVE, JOINED, stack_weights
from graftlm.families.weight_map import WeightMap, rename
from graftlm.model.config import GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration

NO_VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1,
    "intermediate_size": 1,
    "num_hidden_layers": 0,
    "num_attention_heads": 1,
    "image_size": 16,
    "patch_size": 1,
}
"""The smallest tower, since transformers makes one whether there are weights for it or not."""


def split_window(values: Values) -> Values:
    """A window of w tokens, the token itself among them, about half before and half after."""
    size = values["sliding_window"]
    return {"window": None if size is None else ((size + 1) // 2 - 1, size // 2)}


def joined_window(ours: Values) -> dict[str, Any]:
    """Inverse of `split_window`."""
    return {"sliding_window": None if ours["window"] is None else sum(ours["window"]) + 1}


OF_A_STACK = (*SIZES, *GEMMA3_STACK, DROPOUT_ABOVE)
NORMS = (("self_attn.q_norm", "attention.q_norm"), ("self_attn.k_norm", "attention.k_norm"))
ENCODER = "model.encoder.{base}"
"""Releases differ in whether the text encoder has a name of its own."""

T5GEMMA2 = Family(
    name="t5gemma2",
    config=ConfigMap(
        (
            *on(
                "encoder",
                within(
                    "encoder.text_config",
                    (*OF_A_STACK, Rule(("sliding_window",), split_window, joined_window)),
                ),
            ),
            *on("decoder", within("decoder", (*OF_A_STACK, WINDOW))),
            *JOINED,
            pinned("tie_word_embeddings", True, "encoder, decoder and head have one table"),
            given("cross_mode", lambda s: "merged"),
            given("share_embeddings", lambda s: True),
            Rule(("encoder.vision_config",), lambda s: {}, lambda o: {"encoder.vision_config": dict(NO_VISION)}),
            # No token of a text stands for the end of an image, whose embedding is no row of the table.
            repeated("encoder.eoi_token_index", "decoder.vocab_size"),
            repeated("encoder.initializer_range", "encoder.initializer_range"),
            ignored("eoi_token_index", "transformers takes the encoder's"),
            ignored("encoder.vocab_size", "transformers takes its text's"),
            *(
                ignored(f"encoder.{name}", "transformers reads that of the whole model")
                for name in ("attention_dropout", "dropout_rate", "is_encoder_decoder", "tie_word_embeddings")
            ),
            *(
                ignored(name, "images are not read")
                for name in (
                    "image_token_index",
                    "encoder.image_token_index",
                    "encoder.boi_token_index",
                    "encoder.mm_tokens_per_image",
                )
            ),
        ),
        kind=GraftConfig,
        stack=None,
        nested=("encoder", "encoder.text_config", "decoder"),
    ),
    weights=WeightMap(
        (
            rename(f"{ENCODER}embed_tokens.weight", "decoder.embedding.weight"),
            rename("model.decoder.embed_tokens.weight", "decoder.embedding.weight"),
            rename("lm_head.out_proj.weight", "lm_head.weight"),
            *stack_weights("encoder", ENCODER, *NORMS),
            *stack_weights("decoder", "model.decoder.", *NORMS),
        ),
        dropped=(
            "model.encoder.vision_tower.{rest}",
            "model.encoder.multi_modal_projector.{rest}",
            f"{ENCODER}embed_tokens.eoi_embedding",
            "model.decoder.embed_tokens.eoi_embedding",
        ),
        bases=("", "text_model."),
    ),
    architecture="T5Gemma2ForConditionalGeneration",
    model=GraftForConditionalGeneration,
)
