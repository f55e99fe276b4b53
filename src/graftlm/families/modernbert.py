"""ModernBERT. Source: transformers, models/modernbert (configuration_modernbert.py, modeling_modernbert.py)."""

from graftlm.errors import ConversionError
from graftlm.families.bert import ENCODER_SIZES
from graftlm.families.config_map import ConfigMap, Rule, given, ignored, same
from graftlm.families.llama import ATTENTION_BIAS
from graftlm.families.spec import LAYER_TYPES, Family, layer
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import TensorRule, WeightMap, fused, rename
from graftlm.model.config import EncoderConfig
from graftlm.model.encoder_model import EncoderModel


def _rotary(values: Values) -> Values:
    for kind, parameters in values["rope_parameters"].items():
        if parameters.get("partial_rotary_factor") not in (None, 1.0):
            raise ConversionError(f"rope_parameters.{kind}.partial_rotary_factor (only heads rotated whole are known)")
    return {"rotary": {kind: dict(parameters) for kind, parameters in values["rope_parameters"].items()}}


def _parts(source: str, *ours: str) -> tuple[TensorRule, ...]:
    return tuple(
        fused(f"{STOCK_LAYER}.{source}.{kind}", *(f"{OUR_LAYER}.{name}.{kind}" for name in ours))
        for kind in ("weight", "bias")
    )


def _named(source: str, ours: str) -> tuple[TensorRule, ...]:
    return layer(source, ours, "weight", "bias", of=STOCK_LAYER, to=OUR_LAYER)


STOCK_LAYER, OUR_LAYER = "{base}layers.{layer}", "encoder.layers.{layer}"
MODERNBERT = Family(
    name="modernbert",
    config=ConfigMap(
        (
            *ENCODER_SIZES,
            ATTENTION_BIAS,
            same("pad_token_id"),
            same("max_position_embeddings"),
            same("hidden_activation", "activation"),
            same("norm_eps"),
            same("norm_bias"),
            same("mlp_bias"),
            same("embedding_dropout"),
            same("mlp_dropout", "activation_dropout"),
            Rule(
                ("attention_dropout",),
                lambda s: {
                    "attention_dropout": s["attention_dropout"],
                    "attention_out_dropout": s["attention_dropout"],
                },
                lambda o: {"attention_dropout": o["attention_dropout"]},
            ),
            Rule((*LAYER_TYPES.source, "global_attn_every_n_layers"), LAYER_TYPES.read, LAYER_TYPES.write),
            Rule(
                ("rope_parameters", "rope_scaling", "global_rope_theta", "local_rope_theta"),
                _rotary,
                lambda o: {"rope_parameters": {kind: dict(values) for kind, values in o["rotary"].items()}},
            ),
            Rule(
                ("local_attention",),
                lambda s: {"window": (s["local_attention"] // 2, s["local_attention"] // 2)},
                lambda o: {"local_attention": 2 * o["window"][0]},
            ),
            ignored("sliding_window", "transformers works it out from local_attention"),
            ignored("layer_norm_eps", "transformers reads norm_eps"),
            ignored("position_embedding_type", "transformers does not read it; positions are rotary"),
            ignored("cls_token_id", "the tokenizer puts it there"),
            ignored("initializer_cutoff_factor", "of fresh weights"),
            ignored("decoder_bias", "of the head of masked language modelling, which is left behind"),
            ignored("classifier_activation", "of a head, which is left behind"),
            ignored("classifier_bias", "of a head, which is left behind"),
            ignored("classifier_pooling", "of a classifier, which is left behind"),
            ignored("sparse_prediction", "of the head of masked language modelling, which is left behind"),
            ignored("sparse_pred_ignore_index", "of the head of masked language modelling, which is left behind"),
            ignored("repad_logits_with_grad", "of the head of masked language modelling, which is left behind"),
            ignored("deterministic_flash_attn", "a choice of kernel, not of the model"),
            ignored("reference_compile", "a choice of compiler, not of the model"),
            given("first_attention_norm", lambda s: False),
        ),
        kind=EncoderConfig,
        stack="encoder",
    ),
    weights=WeightMap(
        (
            rename("{base}embeddings.tok_embeddings.weight", "encoder.embedding.weight"),
            *layer("norm", "norm", "weight", "bias", of="{base}embeddings", to="encoder.stem"),
            *_named("attn_norm", "attention_norm"),
            *_parts("attn.Wqkv", "attention.q_proj", "attention.k_proj", "attention.v_proj"),
            *_named("attn.Wo", "attention.o_proj"),
            *_named("mlp_norm", "mlp_norm"),
            *_parts("mlp.Wi", "mlp.gate_proj", "mlp.up_proj"),
            *_named("mlp.Wo", "mlp.down_proj"),
            rename("{base}final_norm.weight", "encoder.norm.weight"),
            rename("{base}final_norm.bias", "encoder.norm.bias"),
        ),
        # Heads of pretraining and of single tasks: a decoder reads the states themselves.
        dropped=tuple(
            f"{name}.{kind}"
            for name in ("head.dense", "head.norm", "decoder", "classifier")
            for kind in ("weight", "bias")
        ),
        bases=("", "model."),
    ),
    architecture="ModernBertModel",
    model=EncoderModel,
)
