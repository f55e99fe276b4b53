"""The adaptation study on paper: every arm's settings checked without data or weights."""

from __future__ import annotations

from pathlib import Path

from graftlm.studies.adaptation.scale import Scale
from graftlm.studies.adaptation.work import Train
from graftlm.studies.outline import Outline, arm_outline
from graftlm.training.settings import TuneSettings

CORES = 2


def outline(scale: Scale) -> Outline:
    """A table with one arm a row. Raises: ConfigError for an arm that could not be trained."""
    columns = ["arm", "what", "against", "cross-attention alone", "batch × updates", "rates", "runs"]
    rows, updates, runs = [], 0, 0
    for name, arm in scale.arms.items():
        rates = scale.budget.rates
        job = Train(arm_name=name, arm=arm, scale=scale, data=Path(), seed=0, rate=rates[0])
        found = arm_outline(job.settings, rates, len(scale.seeds), None)
        against = "–" if arm.reference == name else arm.reference
        rows.append([name, arm.title, against, _first(job), found.size, found.rates, str(found.runs)])
        updates, runs = updates + found.updates, runs + found.runs
    texts = f"{', '.join(scale.sets)} of --data" if scale.texts is None else f"{', '.join(scale.texts)} of the hub"
    parts = [
        f"{runs} runs, {updates:,} updates in all, seeds {', '.join(map(str, scale.seeds))}",
        f"model: {scale.model}",
        f"texts: {texts}",
    ]
    if scale.seconds is not None:
        parts.append(f"about {updates * scale.seconds / 3600 / CORES:.1f} hours on {CORES} cores")
    return Outline(columns, rows, f"{'; '.join(parts)}. A phase of a share takes at least 1 update.")


def _first(job: Train) -> str:
    """Updates that cross-attention trains alone, and the share of all that was asked for."""
    settings = TuneSettings(**job.settings)
    if not settings.phases:
        return "–"
    share = settings.phases[0].share
    asked = "" if share is None else f" ({share:.1%} is {share * settings.steps:g})"
    return f"{settings.begins[1]:,}{asked}"
