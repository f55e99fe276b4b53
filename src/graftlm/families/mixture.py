"""What families with a mixture of experts share."""

from graftlm.families.config_map import ignored
from graftlm.families.weight_map import Stacked, TensorRule, rename

NUMBER = ("num_local_experts", "num_experts")
"""The number of experts, as transformers writes it and as older configs do."""
ROUTER_LOSS = tuple(
    ignored(name, "of a loss that keeps experts evenly used, which stock training may add")
    for name in ("output_router_logits", "router_aux_loss_coef")
)


def experts(gate: str, up: str, down: str) -> tuple[TensorRule, ...]:
    """Rules for the linear maps of each expert, given their names in the source."""
    ours = ("gate_proj", "up_proj", "down_proj")
    to = "decoder.layers.{layer}.mlp.experts.{expert}"
    return tuple(
        rename(f"{source}.weight", f"{to}.{part}.weight") for source, part in zip((gate, up, down), ours, strict=True)
    )


def stacked_experts(gate: str, up: str, down: str) -> tuple[Stacked, ...]:
    """The same maps as transformers holds them in memory, of all experts of a layer in one tensor."""
    of = "model.layers.{layer}.mlp.experts"
    return (
        Stacked(f"{of}.gate_up_proj", (f"{gate}.weight", f"{up}.weight")),
        Stacked(f"{of}.down_proj", (f"{down}.weight",)),
    )
