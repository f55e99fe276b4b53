"""Qwen3 with experts. Source: transformers, models/qwen3_moe (configuration_qwen3_moe.py, modeling_qwen3_moe.py)."""

from graftlm.families.config_map import ConfigMap, Rule, given, ignored, same
from graftlm.families.llama import ATTENTION_BIAS, CORE, ROTARY
from graftlm.families.mixture import NUMBER, ROUTER_LOSS, experts, stacked_experts
from graftlm.families.spec import (
    ATTENTION,
    DERIVED_HEAD_DIM,
    EMBEDDINGS,
    MLP,
    PRE_NORMS,
    QK_NORMS,
    ROTARY_BUFFERS,
    WINDOW_EVERYWHERE,
    Family,
    layer,
)
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import WeightMap

NAMES = tuple(f"model.layers.{{layer}}.mlp.experts.{{expert}}.{part}" for part in ("gate_proj", "up_proj", "down_proj"))


def read_experts(values: Values) -> Values:
    """Every `decoder_sparse_step`-th layer has experts, but for `mlp_only_layers`."""
    every = sparse(values["num_hidden_layers"], values["decoder_sparse_step"])
    return {
        "experts": {
            "number": values["num_local_experts"],
            "per_token": values["num_experts_per_tok"],
            "size": values["moe_intermediate_size"],
            "normalised": values["norm_topk_prob"],
            "layers": tuple(layer for layer in every if layer not in values["mlp_only_layers"]),
        }
    }


def write_experts(ours: Values) -> Values:
    """Inverse of `read_experts`; of the ways to say which layers are dense, the one that names the fewest."""
    found = ours["experts"]
    steps = range(1, ours["num_layers"] + 2)
    dense = {
        step: [layer for layer in sparse(ours["num_layers"], step) if layer not in found.layers]
        for step in steps
        if set(found.layers) <= set(sparse(ours["num_layers"], step))
    }
    step = min(dense, key=lambda step: len(dense[step]))
    return {
        "num_local_experts": found.number,
        "num_experts_per_tok": found.per_token,
        "moe_intermediate_size": found.size,
        "norm_topk_prob": found.normalised,
        "decoder_sparse_step": step,
        "mlp_only_layers": dense[step],
    }


def sparse(layers: int, step: int) -> range:
    """Every `step`-th of the layers."""
    return range(step - 1, layers, step)


QWEN3_MOE = Family(
    name="qwen3_moe",
    config=ConfigMap(
        (
            *CORE,
            DERIVED_HEAD_DIM,
            ATTENTION_BIAS,
            ROTARY,
            same("hidden_act", "activation"),
            WINDOW_EVERYWHERE,
            Rule(
                ("use_sliding_window",),
                lambda s: {},
                lambda o: {"use_sliding_window": o["window"] is not None},
            ),
            ignored("max_window_layers", "transformers gives every layer of this family the window"),
            Rule(
                (
                    *NUMBER,
                    "num_experts_per_tok",
                    "moe_intermediate_size",
                    "norm_topk_prob",
                    "decoder_sparse_step",
                    "mlp_only_layers",
                ),
                read_experts,
                write_experts,
            ),
            *ROUTER_LOSS,
            given("qk_norm", lambda s: True),
        )
    ),
    weights=WeightMap(
        (
            *EMBEDDINGS,
            *ATTENTION,
            *QK_NORMS,
            *MLP,
            *layer("mlp.gate", "mlp.router"),
            *experts(*NAMES),
            *PRE_NORMS,
        ),
        dropped=ROTARY_BUFFERS,
        stacked=stacked_experts(*NAMES),
    ),
    architecture="Qwen3MoeForCausalLM",
)
