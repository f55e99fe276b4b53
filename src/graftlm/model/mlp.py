"""The feed-forward sub-layer."""

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from graftlm.errors import ConfigError
from graftlm.model.adapter import EMPTY, LinearDeltas, adapted
from graftlm.model.kernels import Linear
from graftlm.model.stack_config import StackConfig


class MLP(nn.Module):
    """down(act(gate(x)) · up(x)), or down(act(up(x))) without a gate. Shapes: (…, D) -> (…, D).

    `inner` is the inner width, the stack's own by default. Source: gated, arXiv 2002.05202, section 2.
    """

    def __init__(self, config: StackConfig, inner: int | None = None) -> None:
        super().__init__()
        if not isinstance(config.activation, str) or config.activation not in ACT2FN:
            raise ConfigError(f"Unknown activation {config.activation!r}; use a name of transformers' ACT2FN.")
        width, bias = config.hidden_size, config.mlp_bias
        inner = config.intermediate_size if inner is None else inner
        if config.mlp_gated:
            self.gate_proj = Linear(width, inner, bias=bias)
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)
        self.gated = config.mlp_gated
        self.activation = ACT2FN[config.activation]
        self.dropout = config.activation_dropout

    def forward(self, x: Tensor, deltas: LinearDeltas = EMPTY) -> Tensor:
        y = adapted(self.up_proj, x, deltas.get("up_proj"))
        if self.gated:
            y = self.activation(adapted(self.gate_proj, x, deltas.get("gate_proj"))) * y
        else:
            y = self.activation(y)
        if self.training and self.dropout:
            y = F.dropout(y, self.dropout)
        return adapted(self.down_proj, y, deltas.get("down_proj"))
