"""The steering study from beginning to end: make task files, do all jobs, write what they came to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graftlm.studies.jobs import run_jobs
from graftlm.studies.results import circumstances, write_study
from graftlm.studies.search import Records
from graftlm.studies.steering.analysis import runs_of, summaries
from graftlm.studies.steering.page import study_page
from graftlm.studies.steering.plan import SteeringPlan
from graftlm.studies.steering.prepare import prepare
from graftlm.studies.steering.scale import Scale

TASKS = "tasks"
"""Folder of the task files, in that of all jobs."""


def run_study(scale: Scale, data: Path, out: Path, workers: int, say: Callable[[str], None]) -> Records:
    """Do what is not done yet in the folder `out`; returns the records of all jobs by name."""
    prepare({**scale.seen, **scale.held_out}, data, out / TASKS)
    return run_jobs(SteeringPlan(scale, out / TASKS), out, workers, say)


def write_results(scale: Scale, name: str, data: Path, out: Path, done: Records) -> dict[str, Any]:
    """Write results.json and report.html of the jobs that are done into `out`; returns the results."""
    plan = SteeringPlan(scale, out / TASKS)
    runs = runs_of(plan, done)
    jobs = plan(done)
    starts = {name: plan.start(name, done) for name in scale.starts}
    results = circumstances(name, done, "sacrebleu") | {
        "model": scale.model,
        "jobs": [sum(job.name in done for job in jobs), len(jobs)],
        "starts": {
            name: {
                "title": scale.starts[name].title,
                "updates": scale.updates(name),
                "rate": job.rate,
                "validation": done[job.name]["run"]["validation"] if "run" in done[job.name] else [],
            }
            for name, job in starts.items()
            if job is not None and job.name in done
        },
        "cells": summaries(plan, runs),
        "rows": [run.row(name) for cell_runs in runs.values() for run in cell_runs],
    }
    write_study(results, study_page, out)
    return results
