"""The bridge study on paper: every arm's settings checked without data or weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import MarianConfig

from graftlm.adaptation.bridge_init import bridged
from graftlm.families.marian import MARIAN
from graftlm.families.stock_config import complete
from graftlm.model.bridge import Bridge
from graftlm.model.bridge_config import BridgeConfig
from graftlm.model.config import GraftConfig
from graftlm.studies.bridge.arms import BRIDGES, Arm, further
from graftlm.studies.bridge.plan import BridgePlan
from graftlm.studies.bridge.scale import Scale
from graftlm.studies.bridge.work import Train
from graftlm.training.settings import TuneSettings


def outline(scale: Scale) -> tuple[list[str], list[list[str]], str]:
    """Columns and rows of a table with one arm a row, and a sentence on all of them.

    Where only the best bridge has an arm, the first one stands for it.
    Raises: ConfigError for an arm that could not be trained.
    """
    columns = ["arm", "weights", "batch × updates", "rates", "runs"]
    arms = BridgePlan(scale, Path()).arms({})
    if scale.arms is None:
        arms |= further(next(iter(BRIDGES)))
    rows, updates, runs = [], 0, 0
    for name, arm in arms.items():
        rates = scale.rates(name, arm)
        jobs = [Train(arm_name=name, arm=arm, scale=scale, data=Path(), seed=0, rate=rate) for rate in rates]
        settings, *_ = (TuneSettings(**job.settings) for job in jobs)
        count = len(scale.seeds) + (0 if arm.rate_of else len(rates) - 1)
        searched = f"of {arm.rate_of}" if arm.rate_of else " ".join(map(_short, rates))
        size = f"{settings.batch_size} × {settings.steps:,}"
        rows.append([name, f"{bridge_weights(arm, scale):,}", size, searched, str(count)])
        updates, runs = updates + count * settings.steps, runs + count
    if scale.base is not None:
        updates += TuneSettings(**scale.base.settings).steps
    pairs = f"{', '.join(scale.sets)} of --data" if scale.pairs is None else f"{scale.pairs['train']} of the hub"
    start = scale.model or "a base that is trained first"
    seeds = ", ".join(map(str, scale.seeds))
    return columns, rows, f"{runs} runs, {updates:,} updates in all, seeds {seeds}; pairs: {pairs}; start: {start}."


def bridge_weights(arm: Arm, scale: Scale) -> int:
    """Parameters that an arm's bridge has in a model of the scale's shape."""
    if arm.bridge is None:
        return 0
    values = MarianConfig(vocab_size=scale.vocabulary, **scale.shape).to_dict()
    plain: GraftConfig = MARIAN.config.read(values, complete(values))
    config, _ = bridged(plain, BridgeConfig.from_dict(arm.bridge), arm.init)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Bridge(config).parameters())


def _short(rate: float) -> str:
    """A learning rate in few letters.

    >>> _short(0.0006), _short(2e-05)
    ('6e-4', '2e-5')
    """
    return f"{rate:.0e}".replace("e-0", "e-")
