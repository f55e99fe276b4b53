"""Rows of a table for tokens that it has none for."""

import torch
from torch import Tensor

NOISE = 0.01
"""Standard deviation of what is added to the mean row, as a share of each column's root mean square."""


def rows_after(table: Tensor, kept: int, rows: int, seed: int) -> Tensor:
    """The first `kept` rows of a table, and new ones up to `rows`: the mean of those, with a little noise.

    Tables of the same size get the same noise. Shapes: (R, D) -> (rows, D), or those of a bias, (R,) -> (rows,).
    Source: Hewitt, "Initializing New Word Embeddings for Pretrained Language Models" (2021).
    """
    old = table[:kept]
    mean = old.mean(0, dtype=torch.float32)
    size = torch.linalg.vector_norm(old, dim=0, dtype=torch.float32) / len(old) ** 0.5
    noise = torch.empty(rows - len(old), *table.shape[1:]).normal_(generator=torch.Generator().manual_seed(seed))
    return torch.cat((old, (mean + NOISE * size * noise).to(table.dtype)))
