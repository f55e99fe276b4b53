"""GPT-NeoX and Pythia. Source: transformers, models/gpt_neox (configuration_gpt_neox.py, modeling_gpt_neox.py)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graftlm.families.config_map import ConfigMap, Rule, given, ignored, same
from graftlm.families.llama import ATTENTION_BIAS
from graftlm.families.spec import EQUAL_HEADS, OF_CAUSAL_LMS, Family, layer, partial_rotary_for_all, shared_rotary
from graftlm.families.weight_map import Shapes, TensorRule, WeightMap, rename

LAYERS = "gpt_neox.layers.{layer}"
QKV = ("q_proj", "k_proj", "v_proj")


def _apart(tensor: Tensor, shapes: Shapes, config: Any) -> Sequence[Tensor]:
    heads = tensor.unflatten(0, (config.decoder.num_heads, len(QKV), -1))
    return [part.flatten(0, 1) for part in heads.unbind(1)]


def _together(parts: Sequence[Tensor], config: Any) -> Tensor:
    return torch.stack([part.unflatten(0, (config.decoder.num_heads, -1)) for part in parts], dim=1).flatten(0, 2)


def interleaved(kind: str) -> TensorRule:
    """Queries, keys and values of the first head, then those of the second, ….

    With 2 heads of width 1 the rows of the source are q_1, k_1, v_1, q_2, k_2, v_2.
    """
    ours = tuple(f"decoder.layers.{{layer}}.attention.{part}.{kind}" for part in QKV)
    return TensorRule(f"{LAYERS}.attention.query_key_value.{kind}", ours, _apart, _together)


GPT_NEOX = Family(
    name="gpt_neox",
    config=ConfigMap(
        (
            same("vocab_size"),
            same("hidden_size"),
            same("intermediate_size"),
            same("num_hidden_layers", "num_layers"),
            EQUAL_HEADS,
            same("max_position_embeddings"),
            same("hidden_act", "activation"),
            same("layer_norm_eps", "norm_eps"),
            same("attention_dropout"),
            Rule(
                ("hidden_dropout",),
                lambda s: dict.fromkeys(("embedding_dropout", "residual_dropout"), s["hidden_dropout"]),
                lambda o: {"hidden_dropout": o["residual_dropout"]},
            ),
            same("use_parallel_residual", "parallel_residual"),
            Rule(
                (
                    "rope_parameters",
                    "rope_theta",
                    "rope_scaling",
                    "partial_rotary_factor",
                    "rotary_pct",
                    "rotary_emb_base",
                ),
                partial_rotary_for_all,
                shared_rotary,
            ),
            ATTENTION_BIAS,
            ignored("attention_probs_dropout_prob", "transformers reads attention_dropout"),
            ignored("hidden_dropout_prob", "transformers reads hidden_dropout"),
            ignored("classifier_dropout", "of a head that classifies tokens"),
            ignored("is_decoder", "the model is causal whatever it says"),
            *OF_CAUSAL_LMS,
            given("mlp_gated", lambda s: False),
            given("mlp_bias", lambda s: True),
            given("norm_kind", lambda s: "layer"),
            given("norm_bias", lambda s: True),
        )
    ),
    weights=WeightMap(
        (
            rename("gpt_neox.embed_in.weight", "decoder.embedding.weight"),
            rename("gpt_neox.final_layer_norm.weight", "decoder.norm.weight"),
            rename("gpt_neox.final_layer_norm.bias", "decoder.norm.bias"),
            rename("embed_out.weight", "lm_head.weight"),
            rename("lm_head.weight", "lm_head.weight"),
            interleaved("weight"),
            interleaved("bias"),
            *layer("attention.dense", "attention.o_proj", "weight", "bias", of=LAYERS),
            *layer("mlp.dense_h_to_4h", "mlp.up_proj", "weight", "bias", of=LAYERS),
            *layer("mlp.dense_4h_to_h", "mlp.down_proj", "weight", "bias", of=LAYERS),
            *layer("input_layernorm", "attention_norm", "weight", "bias", of=LAYERS),
            *layer("post_attention_layernorm", "mlp_norm", "weight", "bias", of=LAYERS),
        ),
        dropped=(
            f"{LAYERS}.attention.bias",
            f"{LAYERS}.attention.masked_bias",
            f"{LAYERS}.attention.rotary_emb.inv_freq",
        ),
    ),
    architecture="GPTNeoXForCausalLM",
)
