"""T5, its versions 1.1 and Flan, and mT5. Source: transformers, models/t5 and models/mt5."""

from typing import Any

from graftlm.errors import ConversionError
from graftlm.families.config_map import ConfigMap, Rule, both, given, ignored, on, same
from graftlm.families.seq2seq import JOINED, LEFTOVERS, SHARED, TOKENS
from graftlm.families.spec import Family, layer
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import TensorRule, WeightMap, rename
from graftlm.model.config import GraftConfig, RelativeBiasConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.stack_config import LARGEST


def start(values: Values) -> Values:
    """The decoder's first input, which older configs may lack."""
    if values.get("decoder_start_token_id") is None:
        raise ConversionError("decoder_start_token_id=None (name the token that targets begin with, as a rule padding)")
    return {"decoder_start_token_id": values["decoder_start_token_id"]}


def feed_forward(ours: Values) -> dict[str, Any]:
    """The feed-forward part in T5's terms, where gated-gelu stands for the approximation that gelu_new is."""
    gated, activation = ours["mlp_gated"], ours["activation"]
    name = "gelu" if gated and activation == "gelu_new" else activation
    return {
        "feed_forward_proj": f"gated-{name}" if gated else name,
        "dense_act_fn": activation,
        "is_gated_act": gated,
    }


def relative_bias(*, bidirectional: bool) -> Rule:
    """Buckets of distances, one table for each stack."""

    def read(values: Values) -> Values:
        return {
            "relative_bias": RelativeBiasConfig(
                buckets=values["relative_attention_num_buckets"],
                max_distance=values["relative_attention_max_distance"],
                bidirectional=bidirectional,
            )
        }

    return Rule(
        ("relative_attention_num_buckets", "relative_attention_max_distance"),
        read,
        lambda o: {
            "relative_attention_num_buckets": o["relative_bias"].buckets,
            "relative_attention_max_distance": o["relative_bias"].max_distance,
        },
    )


STACKS = (
    *both(
        (
            same("vocab_size"),
            same("d_model", "hidden_size"),
            same("d_ff", "intermediate_size"),
            same("d_kv", "head_dim"),
            Rule(
                ("num_heads",),
                lambda s: {"num_heads": s["num_heads"], "num_kv_heads": s["num_heads"]},
                lambda o: {"num_heads": o["num_heads"]},
            ),
            same("layer_norm_epsilon", "norm_eps"),
            Rule(
                ("feed_forward_proj", "dense_act_fn", "is_gated_act"),
                lambda s: {"mlp_gated": s["is_gated_act"], "activation": s["dense_act_fn"]},
                feed_forward,
            ),
            Rule(
                ("dropout_rate",),
                lambda s: {
                    f"{place}_dropout": s["dropout_rate"]
                    for place in ("embedding", "attention", "activation", "residual", "output")
                },
                lambda o: {"dropout_rate": o["residual_dropout"]},
            ),
            given("query_scale", lambda s: 1.0),
            given("max_position_embeddings", lambda s: LARGEST),
        )
    ),
    *on("encoder", (same("num_layers"), relative_bias(bidirectional=True))),
    *on("decoder", (same("num_decoder_layers", "num_layers"), relative_bias(bidirectional=False))),
)
RULES = (
    *JOINED,
    *STACKS,
    *TOKENS,
    *LEFTOVERS,
    given("decoder_start", lambda s: "bos"),
    Rule(("decoder_start_token_id",), start, lambda o: {"decoder_start_token_id": o["decoder_start_token_id"]}),
    ignored("n_positions", "the length of pretraining; distances have no limit"),
    ignored("initializer_factor", "the size of weights that are made anew"),
    ignored("classifier_dropout", "of a head for classification"),
    Rule(("tie_word_embeddings",), lambda s: {}, lambda o: {"tie_word_embeddings": True}),
)
SCALE = Rule(
    ("scale_decoder_outputs",),
    lambda s: {"decoder.logit_scale": s["d_model"] ** -0.5 if s["scale_decoder_outputs"] else 1.0},
    lambda o: {"scale_decoder_outputs": o["decoder.logit_scale"] != 1.0},
)


def attention(source: str, ours: str, of: str, to: str) -> tuple[TensorRule, ...]:
    """Tensors of one attention in every layer."""
    return tuple(rule for part in "qkvo" for rule in layer(f"{source}.{part}", f"{ours}.{part}_proj", of=of, to=to))


def stack(part: str, last: int) -> tuple[TensorRule, ...]:
    """Tensors of one stack; the feed-forward part is sub-layer number `last` of its layers."""
    of, to = f"{part}.block.{{layer}}.layer", f"{part}.layers.{{layer}}"
    dense = f"{of}.{last}.DenseReluDense"
    return (
        rename(
            f"{part}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", f"{part}.relative_bias.table.weight"
        ),
        *attention("0.SelfAttention", "attention", of, to),
        *layer("0.layer_norm", "attention_norm", of=of, to=to),
        *layer(f"{last}.layer_norm", "mlp_norm", of=of, to=to),
        rename(f"{dense}.wi.weight", f"{to}.mlp.up_proj.weight", when=lambda c: not c.decoder.mlp_gated),
        rename(f"{dense}.wi_0.weight", f"{to}.mlp.gate_proj.weight"),
        rename(f"{dense}.wi_1.weight", f"{to}.mlp.up_proj.weight", when=lambda c: bool(c.decoder.mlp_gated)),
        rename(f"{dense}.wo.weight", f"{to}.mlp.down_proj.weight"),
        rename(f"{part}.final_layer_norm.weight", f"{part}.norm.weight"),
    )


CROSS = ("decoder.block.{layer}.layer", "decoder.layers.{layer}")
WEIGHTS = WeightMap(
    (
        *(rename(f"{name}.weight", "decoder.embedding.weight") for name in SHARED),
        rename("lm_head.weight", "lm_head.weight"),
        *stack("encoder", 1),
        *stack("decoder", 2),
        *attention("1.EncDecAttention", "cross_attention", *CROSS),
        *layer("1.layer_norm", "cross_attention_norm", of=CROSS[0], to=CROSS[1]),
    ),
    dropped=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
)

T5 = Family(
    name="t5",
    config=ConfigMap((*RULES, SCALE), GraftConfig, None, head_by_weights=True),
    weights=WEIGHTS,
    architecture="T5ForConditionalGeneration",
    model=GraftForConditionalGeneration,
)
MT5 = Family(
    name="mt5",
    config=ConfigMap(RULES, GraftConfig, None, head_by_weights=True),
    weights=WEIGHTS,
    architecture="MT5ForConditionalGeneration",
    model=GraftForConditionalGeneration,
)
