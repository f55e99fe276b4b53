"""graftlm study: a paper's experiment, all its arms, with a report."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from graftlm.cli.common import INTERRUPTED, print_table
from graftlm.errors import ConfigError

STUDIES = ("bridge", "adaptation", "steering")
"""Packages of graftlm.studies; each has SCALES, outline, run_study and write_results."""


def study(
    name: Annotated[str, typer.Argument(help=f"Which: {', '.join(STUDIES)}.", metavar="NAME")],
    scale: Annotated[str, typer.Option(help="mini, for hours on two cores, or paper, for a GPU.")] = "mini",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of data sets; --dry-run says which ones a scale needs."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to work in; a study that was stopped goes on there.")] = None,
    workers: Annotated[int, typer.Option(help="Jobs at a time, with one thread each.", min=1)] = 2,
    so_far: Annotated[bool, typer.Option("--so-far", help="Report on what is done so far, and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show what would be done, and stop.")] = False,
) -> None:
    """Repeat a paper's experiment with all its arms, and write its results and a report of them."""
    if name not in STUDIES:
        raise ConfigError(f"There is no study {name!r}; choose one of {', '.join(STUDIES)}.")
    scales, outlines, work = (import_module(f"graftlm.studies.{name}.{part}") for part in ("scale", "dry_run", "study"))
    if scale not in scales.SCALES:
        raise ConfigError(f"There is no scale {scale!r}; choose {' or '.join(scales.SCALES)}.")
    chosen = scales.SCALES[scale]
    if dry_run:
        columns, rows, total = outlines.outline(chosen)
        print_table(f"{name}, scale {scale}", columns, rows)
        typer.echo(total)
        return
    if out is None:
        raise ConfigError("Give --out, the folder to work in, or --dry-run to see what would be done.")
    if data is not None and not chosen.sets:
        raise ConfigError(f"Scale {scale} takes its data from the hub; leave out --data.")
    if data is None and chosen.sets:
        raise ConfigError(f"Scale {scale} needs --data, the folder that holds {', '.join(chosen.sets)}.")
    from graftlm.reports.style import check_matplotlib
    from graftlm.studies.jobs import records

    check_matplotlib()
    folder = Path() if data is None else data.absolute()
    try:
        say = partial(typer.echo, err=True)
        done = records(out) if so_far else work.run_study(chosen, folder, out, workers, say)
    except KeyboardInterrupt:
        typer.echo("Stopped; the same command goes on with what is not done yet.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not done:
        raise ConfigError(f"Nothing is done in {out} so far; leave out --so-far to begin.")
    work.write_results(chosen, scale, folder, out, done)
    typer.echo(f"{out}: results.json and report.html, of {len(done)} jobs.")
