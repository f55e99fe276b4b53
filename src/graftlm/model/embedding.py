"""Token embedding, scaled where the family does."""

import torch
from torch import Tensor, nn


class Embedding(nn.Embedding):
    """Rows of a table times a constant. Shapes: (B, S) ids -> (B, S, D)."""

    def __init__(self, vocabulary: int, width: int, scale: float) -> None:
        super().__init__(vocabulary, width)
        self.scale = scale

    def forward(self, ids: Tensor) -> Tensor:
        rows = super().forward(ids)
        # Gemma rounds the constant to the working dtype first; doing it in fp32 would differ in bf16.
        return rows if self.scale == 1.0 else rows * torch.tensor(self.scale, dtype=rows.dtype, device=rows.device)
