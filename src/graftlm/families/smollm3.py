"""SmolLM3. Source: transformers, models/smollm3 (configuration_smollm3.py, modeling_smollm3.py)."""

from typing import Any

from graftlm.families.config_map import ConfigMap, Rule, ignored, same
from graftlm.families.llama import ATTENTION_BIAS, CORE, ROTARY, WEIGHTS
from graftlm.families.spec import DERIVED_HEAD_DIM, LAYER_TYPES, Family, causal_window, window_size
from graftlm.families.stock_config import Values


def used_window(values: Values) -> dict[str, Any]:
    """The causal window, where it is switched on."""
    return causal_window(values) if values["use_sliding_window"] else {"window": None}


def unrotated(values: Values) -> Values:
    """Layers whose entry in no_rope_layers is 0: the name says the opposite of what the list does."""
    entries = values["no_rope_layers"][: values["num_hidden_layers"]]
    return {"unrotated_layers": tuple(i for i, rotated in enumerate(entries) if not rotated)}


def rotated_entries(ours: Values) -> Values:
    """Inverse of `unrotated`."""
    return {"no_rope_layers": [int(i not in ours["unrotated_layers"]) for i in range(ours["num_layers"])]}


SMOLLM3 = Family(
    name="smollm3",
    config=ConfigMap(
        (
            *CORE,
            DERIVED_HEAD_DIM,
            ATTENTION_BIAS,
            ROTARY,
            LAYER_TYPES,
            Rule(
                ("sliding_window", "use_sliding_window"),
                used_window,
                lambda o: window_size(o) | {"use_sliding_window": o["window"] is not None},
            ),
            Rule(("no_rope_layers",), unrotated, rotated_entries),
            same("hidden_act", "activation"),
            same("mlp_bias"),
            ignored("no_rope_layer_interval", "transformers has folded it into no_rope_layers"),
            ignored("max_window_layers", "transformers does not read it"),
            ignored("pretraining_tp", "splits the same matrix product over ranks"),
        )
    ),
    weights=WEIGHTS,
    architecture="SmolLM3ForCausalLM",
)
