"""BERT, RoBERTa and XLM-RoBERTa. Source: transformers, models/bert, models/roberta and models/xlm_roberta."""

from graftlm.errors import ConversionError
from graftlm.families.config_map import ConfigMap, Rule, given, ignored, pinned, same
from graftlm.families.spec import EQUAL_HEADS, Family, layer
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import TensorRule, WeightMap, rename
from graftlm.model.config import EncoderConfig
from graftlm.model.encoder_model import EncoderModel

ENCODER_SIZES = (
    same("vocab_size"),
    same("hidden_size"),
    same("intermediate_size"),
    same("num_hidden_layers", "num_layers"),
    EQUAL_HEADS,
    same("initializer_range"),
    same("bos_token_id"),
    same("eos_token_id"),
    pinned("is_encoder_decoder", False, "only encoder-only models of this family are known"),
    ignored("tie_word_embeddings", "ties the head of masked language modelling, which is left behind"),
    ignored("classifier_dropout", "of a classifier, which is left behind"),
    given("norm_kind", lambda s: "layer"),
    given("embedding_norm", lambda s: True),
)


def _absolute(values: Values) -> Values:
    kind = values.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise ConversionError(f"position_embedding_type={kind!r} (only absolute positions are known)")
    return {}


BERT_LIKE = (
    *ENCODER_SIZES,
    same("hidden_act", "activation"),
    same("layer_norm_eps", "norm_eps"),
    same("type_vocab_size", "token_types"),
    same("attention_probs_dropout_prob", "attention_dropout"),
    Rule(
        ("hidden_dropout_prob",),
        lambda s: {"embedding_dropout": s["hidden_dropout_prob"], "residual_dropout": s["hidden_dropout_prob"]},
        lambda o: {"hidden_dropout_prob": o["residual_dropout"]},
    ),
    pinned("is_decoder", False, "the encoder must see both sides"),
    pinned("add_cross_attention", False, "only decoders read a memory"),
    # Old configs have it; transformers no longer reads it.
    Rule(("position_embedding_type",), _absolute, lambda o: {}),
    ignored("directionality", "says that it sees both sides, which is_decoder does"),
    *(
        ignored(f"pooler_{name}", "of the pooler, which is left behind")
        for name in ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head", "type")
    ),
    given("absolute_positions", lambda s: "learned"),
    given("norm_placement", lambda s: "post"),
    given("norm_bias", lambda s: True),
    given("final_norm", lambda s: False),
    given("mlp_gated", lambda s: False),
    given("mlp_bias", lambda s: True),
    given("qkv_bias", lambda s: True),
    given("output_bias", lambda s: True),
)
AFTER_PADDING = Rule(
    ("max_position_embeddings", "pad_token_id"),
    lambda s: {
        "max_position_embeddings": s["max_position_embeddings"] - s["pad_token_id"] - 1,
        "position_offset": s["pad_token_id"] + 1,
        "pad_token_id": s["pad_token_id"],
    },
    lambda o: {
        "max_position_embeddings": o["max_position_embeddings"] + o["position_offset"],
        "pad_token_id": o["pad_token_id"],
    },
)
"""RoBERTa's table of positions has rows up to that of the padding token, which are never used, before the first."""


def _norm(source: str, ours: str) -> tuple[TensorRule, ...]:
    """A layer norm, under today's names and those of BERT's first releases."""
    names = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    return tuple(rename(f"{source}.LayerNorm.{theirs}", f"{ours}.{kind}") for theirs, kind in names.items())


def _maps(source: str, ours: str) -> tuple[TensorRule, ...]:
    return layer(source, ours, "weight", "bias", of=STOCK_LAYER, to=OUR_LAYER)


STOCK_LAYER, OUR_LAYER = "{base}encoder.layer.{layer}", "encoder.layers.{layer}"
TENSORS = (
    rename("{base}embeddings.word_embeddings.weight", "encoder.embedding.weight"),
    rename("{base}embeddings.position_embeddings.weight", "encoder.stem.position.weight"),
    rename("{base}embeddings.token_type_embeddings.weight", "encoder.stem.token_type.weight"),
    *_norm("{base}embeddings", "encoder.stem.norm"),
    *_maps("attention.self.query", "attention.q_proj"),
    *_maps("attention.self.key", "attention.k_proj"),
    *_maps("attention.self.value", "attention.v_proj"),
    *_maps("attention.output.dense", "attention.o_proj"),
    *_norm(f"{STOCK_LAYER}.attention.output", f"{OUR_LAYER}.attention_out_norm"),
    *_maps("intermediate.dense", "mlp.up_proj"),
    *_maps("output.dense", "mlp.down_proj"),
    *_norm(f"{STOCK_LAYER}.output", f"{OUR_LAYER}.mlp_out_norm"),
)
BUFFERS = ("{base}embeddings.position_ids", "{base}embeddings.token_type_ids")
"""Counted from 0, and zeros: old releases store them."""

HEADS = tuple(
    f"{name}.{kind}"
    for name, kinds in {
        "{base}pooler.dense": ("weight", "bias"),
        "cls.predictions": ("bias",),
        "cls.predictions.decoder": ("weight", "bias"),
        "cls.predictions.transform.dense": ("weight", "bias"),
        "cls.predictions.transform.LayerNorm": ("weight", "bias", "gamma", "beta"),
        "cls.seq_relationship": ("weight", "bias"),
        "lm_head": ("bias",),
        "lm_head.decoder": ("weight", "bias"),
        "lm_head.dense": ("weight", "bias"),
        "lm_head.layer_norm": ("weight", "bias"),
        "classifier": ("weight", "bias"),
        "classifier.dense": ("weight", "bias"),
        "classifier.out_proj": ("weight", "bias"),
        "qa_outputs": ("weight", "bias"),
    }.items()
    for kind in kinds
)
"""Heads of pretraining and of single tasks: a decoder reads the states themselves."""

BERT = Family(
    name="bert",
    config=ConfigMap(
        (*BERT_LIKE, same("max_position_embeddings"), same("pad_token_id")), kind=EncoderConfig, stack="encoder"
    ),
    weights=WeightMap(TENSORS, dropped=(*BUFFERS, *HEADS), bases=("", "bert.")),
    architecture="BertModel",
    model=EncoderModel,
)
ROBERTA = Family(
    name="roberta",
    config=ConfigMap((*BERT_LIKE, AFTER_PADDING), kind=EncoderConfig, stack="encoder"),
    weights=WeightMap(TENSORS, dropped=(*BUFFERS, *HEADS), bases=("", "roberta.")),
    architecture="RobertaModel",
    model=EncoderModel,
)
XLM_ROBERTA = Family(
    name="xlm-roberta",
    config=ROBERTA.config,
    weights=ROBERTA.weights,
    architecture="XLMRobertaModel",
    model=EncoderModel,
)
