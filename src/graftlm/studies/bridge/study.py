"""The bridge study from beginning to end: prepare, do all jobs, write what they came to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graftlm.data.tokenizers import tokenizer_of
from graftlm.families.locate import locate
from graftlm.files import atomic_folder
from graftlm.studies.bridge.analysis import BridgeRun, smallest_differences, summaries
from graftlm.studies.bridge.corpus import make_tokenizer, translation_tasks
from graftlm.studies.bridge.page import study_page
from graftlm.studies.bridge.plan import BridgePlan
from graftlm.studies.bridge.scale import Scale
from graftlm.studies.bridge.work import TOKENIZER
from graftlm.studies.jobs import run_jobs
from graftlm.studies.results import circumstances, write_study
from graftlm.studies.runs import result_rows, runs_of
from graftlm.studies.search import Records


def run_study(scale: Scale, data: Path, out: Path, workers: int, say: Callable[[str], None]) -> Records:
    """Do what is not done yet in the folder `out`; returns the records of all jobs by name."""
    tasks = translation_tasks(data, scale)
    if not (out / TOKENIZER).exists():
        given = None if scale.model is None else tokenizer_of(locate(scale.model))
        tokenizer = given or make_tokenizer(tasks, scale.vocabulary)
        with atomic_folder(out / TOKENIZER) as folder:
            tokenizer.save_pretrained(folder)
    return run_jobs(BridgePlan(scale, data), out, workers, say)


def write_results(scale: Scale, name: str, data: Path, out: Path, done: Records) -> dict[str, Any]:
    """Write results.json and report.html of the jobs that are done into `out`; returns the results."""
    plan = BridgePlan(scale, data)
    arms, runs = plan.arms(done), runs_of(BridgeRun, plan(done), done)
    found = summaries(runs, arms)
    results = circumstances(name, done, "sacrebleu") | {
        "best_bridge": plan.best_bridge(done),
        "smallest_differences": smallest_differences(found),
        "arms": {
            arm: {"title": arms[arm].title if arm in arms else "base"} | summary for arm, summary in found.items()
        },
        "rows": result_rows(runs, name),
    }
    write_study(results, study_page, out)
    return results
