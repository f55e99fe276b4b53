"""graftlm generate: targets for one text, or for a file of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlm.cli.common import MODEL_HELP, Bar, load
from graftlm.errors import ConfigError

if TYPE_CHECKING:
    from graftlm.data.records import Record


def generate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    text: Annotated[str | None, typer.Argument(help="One source; leave out with --input.")] = None,
    task_encoder: Annotated[Path | None, typer.Option(help="Folder that graftlm tune wrote.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Which of its tasks, if the task encoder was tuned on several.")
    ] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input", help="JSON lines with a source each (.jsonl or .jsonl.gz).")
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option("--output", help="JSON lines with id, source and prediction.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest target in tokens.", min=1)] = None,
    num_beams: Annotated[int | None, typer.Option(help="Beams; 1 is greedy.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Sources decoded together.", min=1)] = 16,
) -> None:
    """Write targets for a text, or for a file of sources. A task encoder brings its own templates and lengths."""
    _check_files(text, input_file, output_file)
    if task is not None and task_encoder is None:
        raise ConfigError("--task chooses among the tasks of a task encoder; give one with --task-encoder.")
    from graftlm.adaptation.task_encoder import task_of
    from graftlm.data.records import Record, read_records
    from graftlm.data.task import Task
    from graftlm.generation.text import generate_texts

    records = [Record(id="0", source=text or "")]
    if input_file is not None:
        records = read_records(input_file, require_target=False)
    graft, tokenizers, manifest = load(model, task_encoder)
    chosen = Task.plain() if manifest is None else task_of(manifest, task)
    room = chosen.max_new_tokens if manifest is not None else min(128, graft.config.max_position_embeddings // 2)
    chosen = chosen.model_copy(
        update={
            "max_new_tokens": max_new_tokens or room,
            "num_beams": num_beams or chosen.num_beams,
        }
    )
    with Bar("generating") as bar:
        predictions = generate_texts(
            graft,
            tokenizers,
            [chosen.source(record) for record in records],
            max_new_tokens=chosen.max_new_tokens,
            num_beams=chosen.num_beams,
            batch_size=batch_size,
            source_limit=chosen.source_limit(graft.config.max_position_embeddings, graft.config.source_positions),
            truncate=chosen.truncate,
            progress=bar,
        )
    if output_file is None:
        typer.echo(predictions[0])
        return
    _write(output_file, records, predictions)
    typer.echo(f"{output_file}: {len(records)} predictions.", err=True)


def _check_files(text: str | None, input_file: Path | None, output_file: Path | None) -> None:
    from graftlm.files import check_new_file

    if (text is None) == (input_file is None):
        raise ConfigError("Give either a text or --input FILE.")
    if (input_file is None) != (output_file is None):
        raise ConfigError("--input and --output go together: give both or none.")
    if input_file is not None and output_file is not None and input_file.resolve() == output_file.resolve():
        raise ConfigError("--input and --output are the same file; choose another output.")
    if output_file is not None:
        check_new_file(output_file)


def _write(path: Path, records: list[Record], predictions: list[str]) -> None:
    from graftlm.files import atomic_file

    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for record, prediction in zip(records, predictions, strict=True):
            row = {"id": record.id, "source": record.source, "prediction": prediction}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
