"""graftlm: encoder–decoders made of language models."""

import os
import sys

import typer

from graftlm import __version__
from graftlm.cli import (
    adapt,
    bench,
    demo,
    distill,
    evaluate,
    export,
    generate,
    inspect,
    new,
    report,
    serve,
    study,
    train,
    tune,
)
from graftlm.errors import GraftError

app = typer.Typer(
    name="graftlm",
    help="Turn a language model into an encoder-decoder, tune one small encoder per task on its frozen decoder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"graftlm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


app.command("inspect")(inspect.inspect)
app.command("adapt")(adapt.adapt)
app.command("new")(new.new)
app.command("tune")(tune.tune)
app.command("train")(train.train)
app.command("distill")(distill.distill)
app.command("eval")(evaluate.evaluate)
app.command("generate")(generate.generate)
app.command("serve")(serve.serve)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("study")(study.study)
app.command("bench")(bench.bench)
app.command("demo")(demo.demo)


def main() -> None:
    """Entry point. What a user can cause ends in one sentence and exit code 2."""
    # Spinning threads make small matrix products many times slower as soon as anything else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app()
    except GraftError as error:
        typer.echo(f"graftlm: error: {error}", err=True)
        sys.exit(2)
