"""What encoder–decoder families share: how their decoders read the memory, and fields of old releases."""

from graftlm.families.config_map import Rule, given, ignored, pinned, same

MEMORY_AS_IT_IS = (
    given("encoder_attention", lambda s: "bidirectional"),
    given("memory_norm", lambda s: "none"),
    given("memory_rotary", lambda s: False),
    given("memory_window", lambda s: "none"),
    given("positions", lambda s: "restarted"),
)
"""An encoder that sees both sides, and a decoder whose positions begin anew."""

JOINED = (
    *MEMORY_AS_IT_IS,
    given("cross_mode", lambda s: "separate"),
    given("source_eos", lambda s: True),
    pinned("is_encoder_decoder", True, "only whole encoder-decoders of this family are known"),
    pinned("is_decoder", False, "only whole encoder-decoders of this family are known"),
)
"""Cross-attention to the last normed state of an encoder that sees both sides."""

TOKENS = (
    same("pad_token_id"),
    Rule(
        ("bos_token_id",),
        lambda s: {"bos_token_id": s.get("bos_token_id")},
        lambda o: {"bos_token_id": o["bos_token_id"]},
    ),
    same("eos_token_id"),
)
"""Special tokens; families without a BOS need not speak of it."""

LEFTOVERS = tuple(
    ignored(name, "left by old releases; transformers no longer reads it")
    for name in (
        "add_bias_logits",
        "add_final_layer_norm",
        "classif_dropout",
        "extra_pos_embeddings",
        "force_bos_token_to_be_generated",
        "normalize_before",
        "normalize_embedding",
        "save_step",
        "static_position_embeddings",
    )
)

SHARED = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
"""Names under which one table of both sides is stored, once or several times."""
