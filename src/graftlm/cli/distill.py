"""graftlm distill: what a teacher says of a task's training data, written once for many runs of tune."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from graftlm.cli.common import INTERRUPTED, TASK_HELP, Bar
from graftlm.cli.tune import examples_of


def distill(
    task: Annotated[str, typer.Argument(help=TASK_HELP)],
    teacher: Annotated[str, typer.Option(help="Decoder-only language model: a folder or a hub name.")],
    out: Annotated[Path, typer.Option(help="Folder for the targets; one that was begun is gone on with.")],
    temperature: Annotated[float, typer.Option(help="Divides the teacher's logits, and later the student's.")] = 1.0,
    keep: Annotated[str, typer.Option(help="sample: drawn tokens; top_k: the likeliest; all: whole distributions.")] = (
        "sample"
    ),
    k: Annotated[int, typer.Option(help="Tokens that sample or top_k keep.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
) -> None:
    """Store a teacher's targets for `tune --teacher OUT`. Run again after a stop, it goes on."""
    import torch

    from graftlm.data.text_task import load_training_task
    from graftlm.data.tokenizers import Tokenizers, target_tokenizer_of, tokenizer_hash
    from graftlm.families.locate import locate
    from graftlm.families.weight_hash import donor_hash
    from graftlm.objectives.teacher_targets import TeacherTargets
    from graftlm.training.teacher import open_teacher
    from graftlm.training.teacher_store import write_targets
    from graftlm.training.teaching import documents_of, load_teacher, taught, teacher_of

    targets = TeacherTargets(keep=cast(Any, keep), k=k, temperature=temperature)
    tokenizer = target_tokenizer_of(locate(teacher))
    tokenizers = Tokenizers(tokenizer, tokenizer)
    donor = open_teacher(teacher, tokenizers)
    data = load_training_task(task)
    positions = donor.encoder_stack.max_position_embeddings, None
    examples = taught(examples_of(data, "train", tokenizers, positions, seed), tokenizers, data.name)
    model = load_teacher(donor)
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    documents = documents_of(examples)
    hashes = {"teacher_hash": donor_hash(donor), "tokenizer_hash": tokenizer_hash(tokenizer)}
    try:
        with Bar(f"{data.name}: tokens that {teacher} has read") as bar:
            made = teacher_of(donor, model, targets, examples)
            store = write_targets(out, documents, made, seed=seed, progress=bar, **hashes)
    except KeyboardInterrupt:
        typer.echo(f"Interrupted; the same command goes on with {out}.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    tokens = sum(map(len, documents))
    size = sum(file.stat().st_size for file in store.folder.iterdir())
    typer.echo(f"{out}: targets of {tokens:,} tokens in {len(store):,} documents, {size / 1e6:,.1f} MB.")
