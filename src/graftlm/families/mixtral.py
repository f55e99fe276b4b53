"""Mixtral. Source: transformers, models/mixtral (configuration_mixtral.py, modeling_mixtral.py)."""

from graftlm.families.config_map import ConfigMap, Rule, pinned, same
from graftlm.families.llama import CORE, ROTARY
from graftlm.families.mixture import NUMBER, ROUTER_LOSS, experts, stacked_experts
from graftlm.families.spec import (
    ATTENTION,
    DERIVED_HEAD_DIM,
    EMBEDDINGS,
    PRE_NORMS,
    ROTARY_BUFFERS,
    WINDOW_EVERYWHERE,
    Family,
    layer,
)
from graftlm.families.weight_map import WeightMap

EXPERTS = Rule(
    (*NUMBER, "num_experts_per_tok"),
    lambda s: {
        "experts": {
            "number": s["num_local_experts"],
            "per_token": s["num_experts_per_tok"],
            "size": s["intermediate_size"],
            "normalised": True,
            "fp32_weights": True,
            "layers": tuple(range(s["num_hidden_layers"])),
        }
    },
    lambda o: {"num_local_experts": o["experts"].number, "num_experts_per_tok": o["experts"].per_token},
)
NAMES = tuple(f"model.layers.{{layer}}.block_sparse_moe.experts.{{expert}}.{part}" for part in ("w1", "w3", "w2"))

MIXTRAL = Family(
    name="mixtral",
    config=ConfigMap(
        (
            *CORE,
            DERIVED_HEAD_DIM,
            ROTARY,
            same("hidden_act", "activation"),
            WINDOW_EVERYWHERE,
            EXPERTS,
            *ROUTER_LOSS,
            pinned("router_jitter_noise", 0.0, "noise on what the router reads is not known"),
        )
    ),
    weights=WeightMap(
        (
            *EMBEDDINGS,
            *ATTENTION,
            *layer("block_sparse_moe.gate", "mlp.router"),
            *layer("mlp.gate", "mlp.router"),
            *experts(*NAMES),
            *PRE_NORMS,
        ),
        dropped=ROTARY_BUFFERS,
        stacked=stacked_experts(*NAMES),
    ),
    architecture="MixtralForCausalLM",
)
