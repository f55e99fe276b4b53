"""The adaptation study from beginning to end: do all jobs, write what they came to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graftlm.studies.adaptation.analysis import METRICS, AdaptationRun, summaries, thresholds
from graftlm.studies.adaptation.arms import shown
from graftlm.studies.adaptation.page import study_page
from graftlm.studies.adaptation.plan import AdaptationPlan
from graftlm.studies.adaptation.scale import Scale
from graftlm.studies.adaptation.work import text_tasks
from graftlm.studies.differences import smallest_difference
from graftlm.studies.jobs import run_jobs
from graftlm.studies.results import circumstances, write_study
from graftlm.studies.runs import result_rows, runs_of
from graftlm.studies.search import Records


def run_study(scale: Scale, data: Path, out: Path, workers: int, say: Callable[[str], None]) -> Records:
    """Do what is not done yet in the folder `out`; returns the records of all jobs by name."""
    text_tasks(data, scale)  # Raises where texts are missing.
    out.mkdir(parents=True, exist_ok=True)
    return run_jobs(AdaptationPlan(scale, data), out, workers, say)


def write_results(scale: Scale, name: str, data: Path, out: Path, done: Records) -> dict[str, Any]:
    """Write results.json and report.html of the jobs that are done into `out`; returns the results."""
    plan = AdaptationPlan(scale, data)
    jobs = plan(done)
    runs = runs_of(AdaptationRun, jobs, done)
    to_reach = thresholds(runs, scale.early)
    found = summaries(runs, scale.arms, to_reach)
    differences = [summary["difference"] for summary in found.values() if "difference" in summary]
    results = circumstances(name, done) | {
        "model": scale.model,
        "texts": scale.told,
        "jobs": [sum(job.name in done for job in jobs), len(jobs)],
        "thresholds": to_reach,
        "smallest_difference": {
            metric: smallest_difference([one[metric] for one in differences]) for metric in METRICS
        },
        "questions": shown(scale.arms),
        "arms": found,
        "rows": result_rows(runs, name),
    }
    write_study(results, study_page, out)
    return results
