"""The gated feed-forward sub-layer."""

from torch import Tensor, nn
from transformers.activations import ACT2FN

from graftlm.errors import ConfigError
from graftlm.model.adapter import EMPTY, LinearDeltas, adapted
from graftlm.model.config import StackConfig
from graftlm.model.kernels import Linear


class GatedMLP(nn.Module):
    """down(act(gate(x)) · up(x)). Shapes: (…, D) -> (…, D). Source: arXiv 2002.05202, section 2."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        if config.activation not in ACT2FN:
            raise ConfigError(f"Unknown activation {config.activation!r}; use a name of transformers' ACT2FN.")
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(width, inner, bias=bias)
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)
        self.activation = ACT2FN[config.activation]

    def forward(self, x: Tensor, deltas: LinearDeltas = EMPTY) -> Tensor:
        gate = self.activation(adapted(self.gate_proj, x, deltas.get("gate_proj")))
        inner = gate * adapted(self.up_proj, x, deltas.get("up_proj"))
        return adapted(self.down_proj, inner, deltas.get("down_proj"))
