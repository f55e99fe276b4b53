"""T5Gemma. Source: transformers, models/t5gemma (configuration_t5gemma.py, modeling_t5gemma.py)."""

from typing import Any

from graftlm.errors import ConversionError
from graftlm.families.config_map import (
    ConfigMap,
    Rule,
    both,
    given,
    ignored,
    on,
    pinned,
    repeated,
    same,
    within,
)
from graftlm.families.gemma2 import ATTENTION_SOFTCAP, GEMMA_STACK, WINDOW
from graftlm.families.llama import ROTARY, SIZES
from graftlm.families.seq2seq import MEMORY_AS_IT_IS
from graftlm.families.spec import Family, layer
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import TensorRule, WeightMap, rename
from graftlm.model.config import GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration


def first_token(values: Values) -> Values:
    """The token that begins a target: both the loss and generation take the decoder's BOS."""
    start, told = values["decoder.bos_token_id"], values.get("decoder_start_token_id")
    if told not in (None, start):
        raise ConversionError(f"decoder_start_token_id={told} (transformers trains with decoder.bos_token_id, {start})")
    return {"decoder_start_token_id": start}


def window_on_both_sides(values: Values) -> Values:
    """A window of w tokens before and w after."""
    size = values["sliding_window"]
    return {"window": None if size is None else (size, size)}


def window_before(ours: Values) -> dict[str, Any]:
    """Inverse of `window_on_both_sides`."""
    return {"sliding_window": None if ours["window"] is None else ours["window"][0]}


JOINED = (
    pinned("is_encoder_decoder", True, "the model has both"),
    same("tie_word_embeddings"),
    same("pad_token_id"),
    same("bos_token_id"),
    same("eos_token_id"),
    repeated("vocab_size", "decoder.vocab_size"),
    repeated("initializer_range", "decoder.initializer_range"),
    Rule(
        ("decoder.bos_token_id", "decoder_start_token_id"),
        first_token,
        lambda o: {"decoder.bos_token_id": o["decoder_start_token_id"]},
    ),
    ignored("classifier_dropout_rate", "of heads that classify"),
    *both(
        (
            same("attention_dropout"),
            Rule(
                ("dropout_rate",),
                lambda s: {
                    f"{place}_dropout": s["dropout_rate"] for place in ("embedding", "activation", "residual", "output")
                },
                lambda o: {"dropout_rate": o["residual_dropout"]},
            ),
        )
    ),
    *MEMORY_AS_IT_IS,
    given("decoder_start", lambda s: "bos"),
)
"""What T5Gemma and T5Gemma 2 say of both stacks together; it goes before what a stack says for itself."""

DROPOUT_ABOVE = ignored("dropout_rate", "transformers reads that of the whole model")

OF_A_STACK = (
    *SIZES,
    *GEMMA_STACK,
    ROTARY,
    ATTENTION_SOFTCAP,
    DROPOUT_ABOVE,
    ignored("classifier_dropout_rate", "of heads that classify"),
    ignored("cross_attention_hidden_size", "transformers takes the encoder's width"),
    ignored("is_decoder", "transformers sets it for either stack"),
)
ENCODER_WINDOW = Rule(("sliding_window",), window_on_both_sides, window_before)


def stack_weights(part: str, source: str, *more: tuple[str, str]) -> tuple[TensorRule, ...]:
    """Rules for layers and final norm of a stack whose names in the source begin so; `more` are further modules."""
    modules = (
        *((f"self_attn.{name}", f"attention.{name}") for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
        *((f"mlp.{name}", f"mlp.{name}") for name in ("gate_proj", "up_proj", "down_proj")),
        ("pre_self_attn_layernorm", "attention_norm"),
        ("post_self_attn_layernorm", "attention_out_norm"),
        ("pre_feedforward_layernorm", "mlp_norm"),
        ("post_feedforward_layernorm", "mlp_out_norm"),
        *more,
    )
    places = {"of": f"{source}layers.{{layer}}", "to": f"{part}.layers.{{layer}}"}
    return (
        *(rule for theirs, ours in modules for rule in layer(theirs, ours, *_kinds(theirs), **places)),
        rename(f"{source}norm.weight", f"{part}.norm.weight"),
    )


def _kinds(module: str) -> tuple[str, ...]:
    return ("weight", "bias") if "attn." in module and module.endswith("_proj") else ("weight",)


T5GEMMA = Family(
    name="t5gemma",
    config=ConfigMap(
        (
            *on("encoder", within("encoder", (*OF_A_STACK, ENCODER_WINDOW))),
            *on("decoder", within("decoder", (*OF_A_STACK, WINDOW))),
            *JOINED,
            given("cross_mode", lambda s: "separate"),
            given("share_embeddings", lambda s: False),
        ),
        kind=GraftConfig,
        stack=None,
        nested=("encoder", "decoder"),
    ),
    weights=WeightMap(
        (
            rename("model.encoder.embed_tokens.weight", "encoder.embedding.weight"),
            rename("model.decoder.embed_tokens.weight", "decoder.embedding.weight"),
            rename("lm_head.out_proj.weight", "lm_head.weight"),
            *stack_weights("encoder", "model.encoder."),
            *stack_weights(
                "decoder",
                "model.decoder.",
                *(
                    (f"cross_attn.{name}", f"cross_attention.{name}")
                    for name in ("q_proj", "k_proj", "v_proj", "o_proj")
                ),
                ("pre_cross_attn_layernorm", "cross_attention_norm"),
                ("post_cross_attn_layernorm", "cross_attention_out_norm"),
            ),
        )
    ),
    architecture="T5GemmaForConditionalGeneration",
    model=GraftForConditionalGeneration,
)
