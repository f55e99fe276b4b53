"""What a stack does to its embedded tokens before the first layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftlm.errors import ConfigError
from graftlm.model.norm import make_norm
from graftlm.model.stack_config import StackConfig


class Stem(nn.Module):
    """Adds absolute positions and the first token type, and normalises; each where the family does.

    Shapes: embedded tokens (B, S, D) and their positions (B, S) -> h_0 (B, S, D).
    Raises: ConfigError for a position beyond the learned ones.
    """

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        if config.absolute_positions == "learned":
            rows = config.position_offset + config.max_position_embeddings
            self.position = nn.Embedding(rows, config.hidden_size)
        if config.token_types:
            self.token_type = nn.Embedding(config.token_types, config.hidden_size)
        if config.embedding_norm:
            self.norm = make_norm(config)

    def forward(self, embedded: Tensor, positions: Tensor) -> Tensor:
        config, x = self.config, embedded
        if config.token_types:
            x = x + self.token_type.weight[0]
        if config.absolute_positions == "learned":
            if positions.numel() and int(positions.max()) >= config.max_position_embeddings:
                raise ConfigError(
                    f"A text has {int(positions.max()) + 1} tokens, but this model has only learned "
                    f"{config.max_position_embeddings} positions; shorten or truncate it."
                )
            x = x + self.position(positions + config.position_offset)
        elif config.absolute_positions == "sinusoidal":
            x = x + sinusoids(positions, config.hidden_size).to(x.dtype)
        if config.embedding_norm:
            x = self.norm(x)
        return F.dropout(x, config.embedding_dropout) if self.training and config.embedding_dropout else x


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sines of all frequencies, then their cosines, in fp32. Shapes: (B, S) -> (B, S, D).

    Source: arXiv 1706.03762, section 3.5; in this order as in Marian (transformers, models/marian).
    """
    exponents = torch.arange(0, width, 2, dtype=torch.double, device=positions.device) / width
    angles = positions[..., None].double() * 10_000.0**-exponents
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()
