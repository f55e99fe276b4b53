"""GPT-2. Source: transformers, models/gpt2 (configuration_gpt2.py, modeling_gpt2.py)."""

from graftlm.families.config_map import ConfigMap, Rule, given, ignored, pinned, same
from graftlm.families.spec import OF_CAUSAL_LMS, Family
from graftlm.families.weight_map import TensorRule, WeightMap, fused, rename, transposed

OF_SUMMARY = "of a head that summarises a text"


def conv(source: str, *ours: str) -> tuple[TensorRule, ...]:
    """Rules for a linear map that stores its matrix as (inputs, outputs); `ours` are the maps fused in it."""
    names = {kind: [f"decoder.layers.{{layer}}.{part}.{kind}" for part in ours] for kind in ("weight", "bias")}
    return (
        transposed(f"{{base}}h.{{layer}}.{source}.weight", *names["weight"]),
        fused(f"{{base}}h.{{layer}}.{source}.bias", *names["bias"]),
    )


def norm(source: str, ours: str) -> tuple[TensorRule, ...]:
    """Rules for a layer norm."""
    return tuple(rename(f"{{base}}{source}.{kind}", f"decoder.{ours}.{kind}") for kind in ("weight", "bias"))


GPT2 = Family(
    name="gpt2",
    config=ConfigMap(
        (
            same("vocab_size"),
            same("n_embd", "hidden_size", also=("hidden_size",)),
            same("n_layer", "num_layers", also=("num_hidden_layers",)),
            same("n_positions", "max_position_embeddings", also=("max_position_embeddings",)),
            Rule(
                ("n_head", "num_attention_heads"),
                lambda s: {
                    "num_heads": s["n_head"],
                    "num_kv_heads": s["n_head"],
                    "head_dim": s["n_embd"] // s["n_head"],
                },
                lambda o: {"n_head": o["num_heads"]},
            ),
            Rule(
                ("n_inner",),
                lambda s: {"intermediate_size": s["n_inner"] or 4 * s["n_embd"]},
                lambda o: {
                    "n_inner": None if o["intermediate_size"] == 4 * o["hidden_size"] else o["intermediate_size"]
                },
            ),
            same("activation_function", "activation"),
            same("layer_norm_epsilon", "norm_eps"),
            same("embd_pdrop", "embedding_dropout"),
            same("attn_pdrop", "attention_dropout"),
            same("resid_pdrop", "residual_dropout"),
            Rule(
                ("scale_attn_weights",),
                lambda s: {"query_scale": None if s["scale_attn_weights"] else 1.0},
                lambda o: {"scale_attn_weights": o["query_scale"] is None},
            ),
            pinned("scale_attn_by_inverse_layer_idx", False, "all layers must scale their scores alike"),
            pinned("add_cross_attention", False, "the donor must be decoder-only"),
            ignored("reorder_and_upcast_attn", "another order of rounding below fp32"),
            ignored("n_ctx", "transformers reads n_positions"),
            ignored("n_special", "of GPT-1, which kept places in the table for special tokens"),
            ignored("predict_special_tokens", "of GPT-1 as well"),
            ignored("summary_type", OF_SUMMARY),
            ignored("summary_use_proj", OF_SUMMARY),
            ignored("summary_activation", OF_SUMMARY),
            ignored("summary_proj_to_labels", OF_SUMMARY),
            ignored("summary_first_dropout", OF_SUMMARY),
            *OF_CAUSAL_LMS,
            given("absolute_positions", lambda s: "learned"),
            given("mlp_gated", lambda s: False),
            given("mlp_bias", lambda s: True),
            given("qkv_bias", lambda s: True),
            given("output_bias", lambda s: True),
            given("norm_kind", lambda s: "layer"),
            given("norm_bias", lambda s: True),
        )
    ),
    weights=WeightMap(
        (
            rename("{base}wte.weight", "decoder.embedding.weight"),
            rename("{base}wpe.weight", "decoder.stem.position.weight"),
            rename("lm_head.weight", "lm_head.weight"),
            *norm("ln_f", "norm"),
            *norm("h.{layer}.ln_1", "layers.{layer}.attention_norm"),
            *norm("h.{layer}.ln_2", "layers.{layer}.mlp_norm"),
            *conv("attn.c_attn", "attention.q_proj", "attention.k_proj", "attention.v_proj"),
            *conv("attn.c_proj", "attention.o_proj"),
            *conv("mlp.c_fc", "mlp.up_proj"),
            *conv("mlp.c_proj", "mlp.down_proj"),
        ),
        dropped=("{base}h.{layer}.attn.bias", "{base}h.{layer}.attn.masked_bias"),
        bases=("transformer.", ""),
    ),
    architecture="GPT2LMHeadModel",
)
