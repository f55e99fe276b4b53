"""graftlm eval: a task's metrics, test loss and source gain as a JSON record; or two records compared."""

from pathlib import Path
from typing import Annotated, Any

import typer

from graftlm.cli.common import MODEL_HELP, TASK_HELP, Bar, load, print_table
from graftlm.errors import ConfigError


def evaluate(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    task: Annotated[str | None, typer.Option(help=TASK_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the record, or for the comparison.")] = None,
    task_encoder: Annotated[Path | None, typer.Option(help="Folder that graftlm tune wrote.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Only the first so many examples.", min=2)] = None,
    batch_size: Annotated[int, typer.Option(help="Examples decoded together.", min=1)] = 16,
    num_beams: Annotated[int | None, typer.Option(help="Beams, instead of the task's; 1 is greedy.", min=1)] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two records of the same examples: is B better than A? Alone, or with --out.", metavar="A B"),
    ] = None,
) -> None:
    """Evaluate a model, with or without a task encoder, on a task; or compare two evaluations with --compare."""
    if compare is not None:
        _only_records(context)
        _compare(*compare, out)
        return
    if model is None or task is None or out is None:
        given = {"MODEL": model, "--task": task, "--out": out}
        missing = " and ".join(name for name, value in given.items() if value is None)
        raise ConfigError(f"{missing} missing: give MODEL, --task and --out, or --compare with two records.")
    from graftlm.data.task import load_task
    from graftlm.evaluation.evaluator import evaluate as run
    from graftlm.files import check_new_file, write_json

    check_new_file(out)
    chosen = load_task(task)
    graft, tokenizers, manifest = load(model, task_encoder)
    with Bar(f"{chosen.name} {split}") as bar:
        record = run(
            graft,
            tokenizers,
            chosen,
            split,
            batch_size=batch_size,
            limit=limit,
            num_beams=num_beams,
            model_name=model,
            encoder_name=None if manifest is None else manifest["name"],
            progress=bar,
        )
    write_json(out, record)
    print_table(f"{chosen.name}, {record['n']} {split} examples", ["metric", "value", "95 % interval"], rows(record))
    typer.echo(f"Record: {out}", err=True)


def rows(record: dict[str, Any]) -> list[list[str]]:
    """Table rows of a record's metrics."""
    return [
        [name, f"{metric['value']:.2f}", f"{metric['low']:.2f} to {metric['high']:.2f}"]
        for name, metric in record["metrics"].items()
    ]


def _only_records(context: typer.Context) -> None:
    """Refuse options that a comparison does not read."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    extra = [
        "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
        for name in given
        if name not in ("compare", "out")
    ]
    if extra:
        raise ConfigError(f"--compare reads two records and nothing else; leave out {', '.join(extra)}.")


def _compare(a: Path, b: Path, out: Path | None) -> None:
    from graftlm.evaluation.compare import compare
    from graftlm.evaluation.record import read_record
    from graftlm.files import check_new_file, write_json

    if out is not None:
        if out.resolve() in (a.resolve(), b.resolve()):
            raise ConfigError(f"--out {out} would overwrite a record that is compared; choose another file.")
        check_new_file(out)
    result = compare(read_record(a), read_record(b))
    print_table(
        f"{result['task']}, {result['n']} {result['split']} examples; A: {a}, B: {b}",
        ["metric", "A", "B", "B - A", "95 % interval", "p"],
        [[name, *_difference(metric)] for name, metric in result["metrics"].items()],
    )
    if out is not None:
        write_json(out, result)
        typer.echo(f"Comparison: {out}", err=True)


def _difference(metric: dict[str, float]) -> list[str]:
    values = (f"{metric['a']:.3f}", f"{metric['b']:.3f}", f"{metric['difference']:+.3f}")
    return [*values, f"{metric['low']:+.3f} to {metric['high']:+.3f}", f"{metric['p']:.3f}"]
