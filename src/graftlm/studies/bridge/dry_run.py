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
from graftlm.studies.outline import Outline, arm_outline
from graftlm.training.settings import TuneSettings


def outline(scale: Scale) -> Outline:
    """A table with one arm a row; where only the best bridge has an arm, the first one stands for it.

    Raises: ConfigError for an arm that could not be trained.
    """
    columns = ["arm", "weights", "batch × updates", "rates", "runs"]
    arms = BridgePlan(scale, Path()).arms({})
    if scale.arms is None:
        arms |= further(next(iter(BRIDGES)))
    rows, updates, runs = [], 0, 0
    for name, arm in arms.items():
        rates = scale.rates(name, arm)
        job = Train(arm_name=name, arm=arm, scale=scale, data=Path(), seed=0, rate=rates[0])
        found = arm_outline(job.settings, rates, len(scale.seeds), arm.rate_of)
        rows.append([name, f"{bridge_weights(arm, scale):,}", found.size, found.rates, str(found.runs)])
        updates, runs = updates + found.updates, runs + found.runs
    if scale.base is not None:
        updates += TuneSettings(**scale.base.settings).steps
    pairs = f"{', '.join(scale.sets)} of --data" if scale.pairs is None else f"{scale.pairs['train']} of the hub"
    start = scale.model or "a base that is trained first"
    seeds = ", ".join(map(str, scale.seeds))
    total = f"{runs} runs, {updates:,} updates in all, seeds {seeds}; pairs: {pairs}; start: {start}."
    return Outline(columns, rows, total)


def bridge_weights(arm: Arm, scale: Scale) -> int:
    """Parameters that an arm's bridge has in a model of the scale's shape."""
    if arm.bridge is None:
        return 0
    values = MarianConfig(vocab_size=scale.vocabulary, **scale.shape).to_dict()
    plain: GraftConfig = MARIAN.config.read(values, complete(values))
    config, _ = bridged(plain, BridgeConfig.from_dict(arm.bridge), arm.init)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Bridge(config).parameters())
