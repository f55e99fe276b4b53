"""graftlm report: an HTML page of run records."""

from pathlib import Path
from typing import Annotated

import typer

from graftlm.errors import ConfigError


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders that graftlm tune wrote, and records of graftlm eval or folders of them.",
            metavar="RUN_DIR",
        ),
    ],
    out: Annotated[Path, typer.Option(help="HTML file for the report.")],
) -> None:
    """Make one HTML page of training and evaluation records, with figures; it needs no network to be read."""
    from graftlm.files import atomic_file, check_new_file
    from graftlm.reports.records import read_records
    from graftlm.reports.run_report import run_report
    from graftlm.reports.style import check_matplotlib

    check_new_file(out)
    if out.resolve() in [path.resolve() for path in runs]:
        raise ConfigError(f"--out {out} would overwrite a record; choose another file.")
    check_matplotlib()
    page = run_report(read_records(runs)).html()
    with atomic_file(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    typer.echo(f"Report: {out}", err=True)
