"""A mixture of experts in the place of the feed-forward sub-layer."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from graftlm.model.adapter import EMPTY, LinearDeltas
from graftlm.model.kernels import Linear
from graftlm.model.mlp import MLP
from graftlm.model.stack_config import StackConfig


class Experts(nn.Module):
    """Each token goes through its few best experts; their outputs are summed by the router's weights.

    Shapes: (B, T, D) -> (B, T, D). The weights are a softmax over all experts in fp32, then the best ones, scaled to
    sum to 1 where the family does. No token is dropped, so a row never depends on its batch. Adapters have no place
    inside the experts.
    Source: arXiv 2401.04088, section 2.1; transformers, models/mixtral and models/qwen3_moe.
    """

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        assert config.experts is not None
        self.config = config.experts
        self.router = Linear(config.hidden_size, self.config.number, bias=False)
        self.experts = nn.ModuleList(MLP(config, self.config.size) for _ in range(self.config.number))

    def forward(self, x: Tensor, deltas: LinearDeltas = EMPTY) -> Tensor:
        tokens = x.flatten(0, -2)
        weights, chosen = self.route(tokens)
        output = torch.zeros_like(tokens)
        for number, expert in enumerate(self._experts()):
            token, place = (chosen == number).nonzero(as_tuple=True)
            if len(token):
                weighted = expert(tokens[token]) * weights[token, place, None]
                output.index_add_(0, token, weighted.to(output.dtype))
        return output.view_as(x)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of each token's experts. Shapes: (N, D) -> twice (N, per_token)."""
        shares = torch.softmax(self.router(tokens), dim=-1, dtype=torch.float)
        weights, chosen = shares.topk(self.config.per_token, dim=-1)
        if self.config.normalised:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights if self.config.fp32_weights else weights.to(tokens.dtype), chosen

    def _experts(self) -> Iterator[MLP]:
        return cast(Iterator[MLP], iter(self.experts))
