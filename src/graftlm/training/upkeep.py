"""How a run is kept going: settings that are none of what is learned, so that a resumed run may change them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from graftlm.errors import ConfigError

OnBadLoss = Literal["stop", "skip"]
ReportTo = Literal["none", "tensorboard", "wandb", "trackio"]
PACKAGES: dict[str, tuple[str, ...]] = {
    "none": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}
"""What each of ReportTo needs one of."""
ON_BAD_LOSS: tuple[OnBadLoss, ...] = get_args(OnBadLoss)


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """What is done about bad losses, checkpoints, memory, workers and reports."""

    on_bad_loss: OnBadLoss = "stop"
    """At a loss or gradient that is not finite, or at a spike: stop the run, or skip that update and go on."""
    spike: float | None = None
    """A loss or a gradient norm over so many times its running median is a spike; None looks for none."""
    keep_checkpoints: int = 1
    """Newest checkpoints that stay."""
    activation_checkpointing: bool = False
    """Keep only the inputs of each layer for the backward pass: less memory, more time."""
    workers: int = 0
    """Processes that make batches while the model computes; 0 makes each when it is needed."""
    report_to: ReportTo = "none"
    """Where else than to the run record losses go, by transformers' own integration."""

    def __post_init__(self) -> None:
        if self.on_bad_loss not in ON_BAD_LOSS:
            raise ConfigError(f"on_bad_loss is {self.on_bad_loss!r}; choose {' or '.join(ON_BAD_LOSS)}.")
        if self.spike is not None and not 1 < self.spike < math.inf:
            raise ConfigError(f"spike is {self.spike}; it must be a number above 1, such as 10.")
        if self.keep_checkpoints < 1:
            raise ConfigError(f"keep_checkpoints is {self.keep_checkpoints}; it must be at least 1.")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; it must not be below 0.")
        if self.report_to not in PACKAGES:
            raise ConfigError(f"report_to is {self.report_to!r}; choose {', '.join(PACKAGES)}.")
        packages = PACKAGES[self.report_to]
        if packages and not any(find_spec(package) for package in packages):
            raise ConfigError(
                f"report_to {self.report_to} needs the package {packages[0]}; run `pip install {packages[0]}`, or "
                "choose none."
            )
        if self.report_to == "tensorboard" and "TENSORBOARD_LOGGING_DIR" not in os.environ:
            raise ConfigError("report_to tensorboard writes into a folder; name it in TENSORBOARD_LOGGING_DIR.")


UPKEEP = Upkeep()
