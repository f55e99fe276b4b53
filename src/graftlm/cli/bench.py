"""graftlm bench: a measurement on this machine, side by side with what users would pick instead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graftlm.cli.common import print_table
from graftlm.errors import ConfigError

BENCHES = ("train",)


def bench(
    name: Annotated[str, typer.Argument(help=f"Which: {', '.join(BENCHES)}.", metavar="NAME")],
    quick: Annotated[bool, typer.Option("--quick", help="Tiny models, to see that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write the result to as well.")] = None,
) -> None:
    """Measure graftlm on this machine against what users would pick instead."""
    if name not in BENCHES:
        raise ConfigError(f"There is no benchmark {name!r}; choose {' or '.join(BENCHES)}.")
    from graftlm.bench.train import measure
    from graftlm.files import write_json

    result = measure(quick, lambda text: typer.echo(text, err=True))
    rows = [
        [row["case"], row["unit"], str(row["ours"]), str(min(row["peers"].values())), str(row["ratio"])]
        for row in result["rows"]
    ]
    print_table(f"bench {name}", ["case", "unit", "ours", "best peer", "ratio"], rows)
    if out is not None:
        write_json(out, result)
