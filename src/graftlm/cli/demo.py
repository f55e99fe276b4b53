"""graftlm demo: the whole story on the embedded language model, on a CPU, offline."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from graftlm.cli.common import progress_console
from graftlm.cli.serve import check_installed
from graftlm.errors import ConfigError

REPORT = Path("graftlm-demo.html")
QUICK_STEPS, QUICK_LIMIT = 12, 8


def demo(
    out: Annotated[
        Path | None, typer.Option(help="New folder to keep everything in; without it, only the report is kept.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few updates and examples: does it run here?")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Run all arms here, instead of showing the committed results of most.")
    ] = False,
) -> None:
    """Graft the embedded language model, teach it two tasks, compare the ways, serve both, and write a report."""
    from transformers.utils import logging

    import graftlm.hf  # noqa: F401 - gives the model add_task_encoder, which the engine calls
    from graftlm.demo.page import demo_page
    from graftlm.demo.run_arm import Budget
    from graftlm.demo.story import Demo, run_demo
    from graftlm.files import atomic_file, check_new_file, write_json
    from graftlm.reports.style import check_matplotlib

    if quick and full:
        raise ConfigError("--quick and --full contradict each other; leave one out.")
    check_matplotlib()
    check_installed()
    if out is None:
        check_new_file(REPORT)
    logging.disable_progress_bar()
    start = time.perf_counter()
    budget = Budget(steps=QUICK_STEPS, limit=QUICK_LIMIT) if quick else Budget()
    with _folder(out) as folder:
        record = run_demo(Demo(folder, budget, full, quick, progress_console(), typer.echo))
        record["seconds"] = round(time.perf_counter() - start, 1)
        write_json(folder / "demo.json", record)
        report = folder / "report.html" if out is not None else REPORT
        with atomic_file(report) as file:
            file.write_text(demo_page(record).html(), encoding="utf-8")
    typer.echo(f"5. Report: {REPORT if out is None else out / 'report.html'}, after {record['seconds']:.0f} s in all.")
    if quick:
        typer.echo("Of --quick only that it runs counts: after so few updates the figures say nothing.")


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    from graftlm.files import atomic_folder

    if out is not None:
        with atomic_folder(out) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
