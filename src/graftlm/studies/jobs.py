"""Work of a study: jobs that leave a record each, several at a time; what has a record is not done again."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from graftlm.files import write_json

Record = dict[str, Any]
RECORD = "record.json"


class Job(Protocol):
    """One piece of work; it is sent to another process, and says itself how it is done."""

    @property
    def name(self) -> str:
        """The folder of its own that it leaves its record in, and whatever others need of it."""

    def __call__(self, folder: Path) -> Record:
        """Do it, in the folder of all jobs."""


Plan = Callable[[Mapping[str, Record]], Sequence[Job]]
"""Jobs that can be done or are done, the most urgent first, given the records of those that are done."""


def run_jobs(plan: Plan, folder: Path, workers: int, say: Callable[[str], None]) -> dict[str, Record]:
    """Do all jobs of a plan, `workers` at a time in processes of one thread each; returns their records by name.

    The plan is asked again after every job, since what is to be done may depend on how others ended. A job's record is
    written when it has ended well, so that a study which was stopped goes on with the jobs that have none.
    Raises: whatever a job raises, once those beside it have ended; KeyboardInterrupt, having ended those that run.
    """
    done = records(folder)
    running: dict[Future[Record], str] = {}
    with _processes(workers) as pool:
        while True:
            jobs = plan(done)
            waiting = [job for job in jobs if job.name not in done and job.name not in running.values()]
            for job in waiting[: workers - len(running)]:
                say(f"begins {job.name}")
                running[pool.submit(job, folder)] = job.name
            if not running:
                return {job.name: done[job.name] for job in jobs}
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                name = running.pop(future)
                write_json(folder / name / RECORD, future.result())
                done[name] = _read(folder / name / RECORD)
                say(f"ended {name}; {len(done)} of the {len(jobs)} jobs known so far are done")


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes for jobs; none outlives the block, and after Ctrl-C they end at once instead of with their jobs."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.kill()
            raise


def records(folder: Path) -> dict[str, Record]:
    """Records of all jobs that have ended, by name."""
    found = sorted(folder.glob(f"*/{RECORD}"))
    return {path.parent.name: _read(path) for path in found}


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def _begin() -> None:
    # A terminal sends Ctrl-C to all; what becomes of jobs is up to the process that started them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Jobs beside each other are quicker with a thread each than with all threads for each.
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
