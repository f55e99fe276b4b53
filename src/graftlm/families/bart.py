"""BART and mBART. Source: transformers, models/bart and models/mbart."""

import math
from typing import Any

from graftlm.errors import ConversionError
from graftlm.families.config_map import ConfigMap, Rule, both, given, ignored, on, pinned, same
from graftlm.families.seq2seq import JOINED, LEFTOVERS, SHARED, TOKENS
from graftlm.families.spec import Family, layer
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import TensorRule, WeightMap, rename
from graftlm.model.config import GraftConfig
from graftlm.model.modeling import GraftForConditionalGeneration


def side(part: str, vocabulary: str = "vocab_size") -> tuple[Rule, ...]:
    """What each stack has of its own."""

    def heads(values: Values) -> Values:
        number, width = values[f"{part}_attention_heads"], values["d_model"]
        if width % number:
            raise ConversionError(f"{part}_attention_heads={number!r} (it must divide d_model={width!r})")
        return {"num_heads": number, "num_kv_heads": number, "head_dim": width // number}

    return on(
        part,
        (
            same(vocabulary, "vocab_size"),
            same(f"{part}_layers", "num_layers", also=("num_hidden_layers",) if part == "encoder" else ()),
            same(f"{part}_ffn_dim", "intermediate_size"),
            Rule((f"{part}_attention_heads",), heads, lambda o: {f"{part}_attention_heads": o["num_heads"]}),
            pinned(f"{part}_layerdrop", 0.0, "layers cannot be left out in training"),
        ),
    )


STACKS = both(
    (
        same("d_model", "hidden_size"),
        same("max_position_embeddings"),
        same("activation_function", "activation"),
        Rule(
            ("dropout",),
            lambda s: {"embedding_dropout": s["dropout"], "residual_dropout": s["dropout"]},
            lambda o: {"dropout": o["residual_dropout"]},
        ),
        same("attention_dropout"),
        same("activation_dropout"),
        same("init_std", "initializer_range"),
        Rule(
            ("scale_embedding",),
            lambda s: {"embedding_scale": math.sqrt(s["d_model"]) if s["scale_embedding"] else 1.0},
            lambda o: {"scale_embedding": o["embedding_scale"] != 1.0},
        ),
        *(given(name, lambda s: True) for name in ("qkv_bias", "output_bias", "mlp_bias", "norm_bias")),
        given("mlp_gated", lambda s: False),
        given("norm_kind", lambda s: "layer"),
        given("norm_eps", lambda s: 1e-5),
    )
)
RULES = (
    *JOINED,
    *STACKS,
    *TOKENS,
    *LEFTOVERS,
    same("decoder_start_token_id"),
    given("decoder.logit_bias", lambda s: True),
    ignored("classifier_dropout", "of a head for classification"),
)
POST_NORM = both((given("norm_placement", lambda s: "post"), given("final_norm", lambda s: False)))
OWN_POSITIONS = both(
    (
        given("absolute_positions", lambda s: "learned"),
        given("position_offset", lambda s: 2),
        given("embedding_norm", lambda s: True),
    )
)
ONE_TABLE = (
    *side("encoder"),
    *side("decoder"),
    *OWN_POSITIONS,
    pinned("tie_word_embeddings", True, "one table serves encoder, decoder and head"),
    given("target_special_tokens", lambda s: True),
)

BOTH = ("weight", "bias")


def modules(part: str, named: dict[str, str]) -> tuple[TensorRule, ...]:
    """Weight and bias of modules of every layer of one stack."""
    of, to = f"{{base}}{part}.layers.{{layer}}", f"{part}.layers.{{layer}}"
    return tuple(rule for source, ours in named.items() for rule in layer(source, ours, *BOTH, of=of, to=to))


def attention(source: str, ours: str) -> dict[str, str]:
    """Modules of one attention."""
    names = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "out_proj": "o_proj"}
    return {f"{source}.{name}": f"{ours}.{to}" for name, to in names.items()}


def layers(norm: str) -> tuple[TensorRule, ...]:
    """Every layer of both stacks; `norm` is what our norms are called."""
    alike = attention("self_attn", "attention") | {
        "self_attn_layer_norm": f"attention{norm}",
        "fc1": "mlp.up_proj",
        "fc2": "mlp.down_proj",
        "final_layer_norm": f"mlp{norm}",
    }
    cross = attention("encoder_attn", "cross_attention") | {"encoder_attn_layer_norm": f"cross_attention{norm}"}
    return modules("encoder", alike) + modules("decoder", alike | cross)


def stems(*named: tuple[str, str]) -> tuple[TensorRule, ...]:
    """Weight and bias of modules beside the layers of each stack."""
    return tuple(
        rename(f"{{base}}{part}.{source}.{kind}", f"{part}.{ours}.{kind}")
        for part in ("encoder", "decoder")
        for source, ours in named
        for kind in BOTH
    )


SHARED_TABLE = tuple(rename(f"{{base}}{name}.weight", "decoder.embedding.weight") for name in SHARED)
HEAD = (
    rename("lm_head.weight", "lm_head.weight"),
    TensorRule(
        "final_logits_bias", ("lm_head.bias",), lambda t, shapes, c: (t[0],), lambda parts, c: parts[0][None], 0.0
    ),
)
POSITIONS = tuple(
    rename(f"{{base}}{part}.embed_positions.weight", f"{part}.stem.position.weight") for part in ("encoder", "decoder")
)
VERSIONS = ("{base}encoder.version", "{base}decoder.version")
"""Numbers that old releases stored."""
BASES = ("model.", "")
"""Releases of the plain model, as bart-base, lack the prefix."""


def family(
    name: str, architecture: str, rules: tuple[Rule, ...], weights: tuple[TensorRule, ...], **left: Any
) -> Family:
    """An encoder–decoder with the layers of BART."""
    return Family(
        name=name,
        config=ConfigMap((*RULES, *rules), GraftConfig, None),
        weights=WeightMap((*weights, *HEAD), bases=BASES, **left),
        architecture=architecture,
        model=GraftForConditionalGeneration,
    )


BART = family(
    "bart",
    "BartForConditionalGeneration",
    (*ONE_TABLE, *POST_NORM, given("decoder_start", lambda s: "bos")),
    (*SHARED_TABLE, *POSITIONS, *layers("_out_norm"), *stems(("layernorm_embedding", "stem.norm"))),
    dropped=VERSIONS,
)
MBART = family(
    "mbart",
    "MBartForConditionalGeneration",
    (*ONE_TABLE, given("decoder_start", lambda s: "last_label")),
    (
        *SHARED_TABLE,
        *POSITIONS,
        *layers("_norm"),
        *stems(("layernorm_embedding", "stem.norm"), ("layer_norm", "norm")),
    ),
    dropped=VERSIONS,
)
