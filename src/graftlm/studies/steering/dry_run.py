"""The steering study on paper: every start's and arm's settings checked without data or weights."""

from __future__ import annotations

from pathlib import Path

from graftlm.studies.outline import ArmOutline, Outline, arm_outline
from graftlm.studies.steering.arms import ADAPTED, Cell
from graftlm.studies.steering.plan import SteeringPlan
from graftlm.studies.steering.scale import Scale
from graftlm.studies.steering.work import Adapt, Tune

CORES = 2


def outline(scale: Scale) -> Outline:
    """A table with one start or arm a row. Raises: ConfigError for one that could not be trained."""
    columns = ["start or arm", "what", "tasks", "batch × updates", "rates", "runs"]
    rows, adapted, tuned, runs = [], 0, 0, 0
    for name, start in scale.starts.items():
        updates = scale.updates(name)
        if not updates:
            rows.append([name, start.title, "–", "–", "–", "0"])
            continue
        rates = scale.adaptation.rates
        job = Adapt(arm_name=name, start=start, scale=scale, data=Path(), seed=0, rate=rates[0])
        # The one that counts is among those of the search.
        found = arm_outline(job.settings, rates, 1, start.rate_of)
        rows.append([name, start.title, "–", found.size, found.rates, str(found.runs)])
        adapted, runs = adapted + found.updates, runs + found.runs
    plan = SteeringPlan(scale, Path())
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in scale.cells:
        groups.setdefault((cell.start, cell.arm), []).append(cell)
    for (begin, arm), cells in groups.items():
        tunings = [_tuning(plan, cell) for cell in cells if scale.arms[arm].settings is not None]
        size, rates_told = (" ".join({getattr(one, part) for one in tunings}) or "–" for part in ("size", "rates"))
        of_all = sum(one.runs for one in tunings)
        tasks = " ".join(cell.task for cell in cells)
        rows.append([f"{begin}, {arm}", scale.arms[arm].title, tasks, size, rates_told, str(of_all)])
        tuned, runs = tuned + sum(one.updates for one in tunings), runs + of_all
    parts = [
        f"{runs} runs, {adapted:,} updates of adaptation and {tuned:,} of tuning, "
        f"seeds {', '.join(map(str, scale.seeds))}",
        f"model: {scale.model}",
        f"data: {', '.join(scale.sets)} of --data",
    ]
    if scale.seconds is not None:
        seconds = adapted * scale.seconds[0] + tuned * scale.seconds[1]
        parts.append(f"about {seconds / 3600 / CORES:.1f} hours on {CORES} cores")
    return Outline(columns, rows, f"{'; '.join(parts)}.")


def _tuning(plan: SteeringPlan, cell: Cell) -> ArmOutline:
    scale = plan.scale
    rates = scale.tuning.rates
    job = Tune(arm_name=cell.name, cell=cell, start="", scale=scale, data=Path(), seed=0, rate=rates[0])
    return arm_outline(job.settings, rates, len(scale.seeds), None if plan.searches(cell) else ADAPTED)
