"""Jobs of a study: each once, in processes of their own, in the order of the plan, and again where one was lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from graftlm.errors import TaskError
from graftlm.studies.jobs import RECORD, records, run_jobs


@dataclass(frozen=True)
class Add:
    """Writes down that it ran, and adds up numbers."""

    name: str
    numbers: tuple[int, ...]

    def __call__(self, folder: Path) -> dict[str, Any]:
        if self.name == "bad":
            raise TaskError("There is no such set.")
        with (folder / "ran.txt").open("a") as file:
            file.write(f"{self.name}\n")
        return {"sum": sum(self.numbers)}


def plan(done: Mapping[str, dict[str, Any]]) -> list[Add]:
    """Two sums, then the sum of both."""
    first = [Add("a", (1, 2)), Add("b", (3, 4))]
    if any(job.name not in done for job in first):
        return first
    return [*first, Add("c", tuple(done[name]["sum"] for name in "ab"))]


def test_what_depends_on_others_comes_after_them_and_nothing_runs_twice(tmp_path: Path) -> None:
    said: list[str] = []
    done = run_jobs(plan, tmp_path, 2, said.append)
    assert {name: record["sum"] for name, record in done.items()} == {"a": 3, "b": 7, "c": 10}
    assert records(tmp_path) == done
    assert sorted((tmp_path / "ran.txt").read_text().split()) == ["a", "b", "c"]
    assert sum("begins" in line for line in said) == 3
    (tmp_path / "b" / RECORD).unlink()
    assert run_jobs(plan, tmp_path, 1, said.append) == done
    assert sorted((tmp_path / "ran.txt").read_text().split()) == ["a", "b", "b", "c"]


def test_a_job_that_fails_stops_the_study_and_leaves_the_records_of_others(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such set"):
        run_jobs(lambda done: [Add("a", (1,)), Add("bad", ())], tmp_path, 1, lambda text: None)
    assert json.loads((tmp_path / "a" / RECORD).read_text()) == {"sum": 1}
    assert set(records(tmp_path)) == {"a"}


SLOW = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from graftlm.studies.jobs import run_jobs

@dataclass(frozen=True)
class Sleep:
    name: str
    def __call__(self, folder):
        (folder / f"{self.name}.begun").touch()
        time.sleep(600)

if __name__ == "__main__":
    run_jobs(lambda done: [Sleep("a"), Sleep("b")], Path(sys.argv[1]), 2, print)
"""


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_ends_the_jobs_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    process = subprocess.Popen([sys.executable, script, tmp_path], stderr=subprocess.PIPE, text=True, process_group=0)
    while len(list(tmp_path.glob("*.begun"))) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    # As a terminal does: to the study and to its jobs.
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert said.count("KeyboardInterrupt") == 1
    # What multiprocessing starts beside the jobs ends a moment later.
    end = time.monotonic() + 30
    while alive(process.pid):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert not records(tmp_path)
