"""What trains and what stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from graftlm.errors import ConfigError

FREEZE: dict[str, tuple[str, ...]] = {"decoder": ("decoder.", "lm_head."), "none": ()}
"""Choice -> prefixes of the tensors that do not train. `decoder` is all that tasks share: the fingerprinted part."""


@dataclass(frozen=True)
class Frozen:
    """Outcome of a freeze, in parameters."""

    trainable: int
    frozen: int


def freeze(model: nn.Module, choice: str) -> Frozen:
    """Stop gradients for the chosen part; they are then neither computed nor stored.

    Raises: ConfigError for an unknown choice.
    """
    if choice not in FREEZE:
        raise ConfigError(f"freeze is {choice!r}; it must be one of {', '.join(FREEZE)}.")
    counts = {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        trains = not name.startswith(FREEZE[choice])
        parameter.requires_grad_(trains)
        counts[trains] += parameter.numel()
    return Frozen(trainable=counts[True], frozen=counts[False])
