"""graftlm eval: a task's metrics, test loss and source gain, as a JSON record."""

from pathlib import Path
from typing import Annotated, Any

import typer

from graftlm.cli.common import MODEL_HELP, TASK_HELP, Bar, load, print_table


def evaluate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    task: Annotated[str, typer.Option(help=TASK_HELP)],
    out: Annotated[Path, typer.Option(help="JSON file for the record.")],
    task_encoder: Annotated[Path | None, typer.Option(help="Folder that graftlm tune wrote.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Only the first so many examples.", min=2)] = None,
    batch_size: Annotated[int, typer.Option(help="Examples decoded together.", min=1)] = 16,
) -> None:
    """Evaluate a model, with or without a task encoder, on a task."""
    from graftlm.data.task import load_task
    from graftlm.evaluation.evaluator import evaluate as run
    from graftlm.files import check_new_file, write_json

    check_new_file(out)
    chosen = load_task(task)
    graft, tokenizer, manifest = load(model, task_encoder)
    with Bar(f"{chosen.name} {split}") as bar:
        record = run(
            graft,
            tokenizer,
            chosen,
            split,
            batch_size=batch_size,
            limit=limit,
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
