"""The bridge: what each decoder layer reads of the encoder's states, m_j = f_j(h_0, …, h_N)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from graftlm.model.config import BridgeConfig


class Bridge(nn.Module):
    """Memory of every decoder layer from all encoder states.

    `last`: m_j = norm(h_N) for every j, as in T5Gemma (arXiv 2504.06225).
    `aligned`: m_j = h_{j-1}, raw: what decoder layer j would have had as its input inside the LLM, as in layer-wise
    coordination (He et al. 2018); the encoder then has one layer fewer than the decoder.
    """

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__()
        self.kind = config.kind

    def forward(self, states: Sequence[Tensor], norm: Callable[[Tensor], Tensor]) -> Tensor:
        """States, each (B, S, D) -> memory (B, M, S, D), with M = 1 where all decoder layers read the same."""
        if self.kind == "aligned":
            return torch.stack(list(states), dim=1)
        return norm(states[-1]).unsqueeze(1)
