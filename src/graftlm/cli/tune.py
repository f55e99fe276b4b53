"""graftlm tune: one task's encoder on a frozen decoder."""

from pathlib import Path
from typing import Annotated

import typer

from graftlm.cli.common import MODEL_HELP, TASK_HELP, load, progress_console


def tune(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    task: Annotated[str, typer.Option(help=TASK_HELP)],
    out: Annotated[Path, typer.Option(help="New folder for the task encoder.")],
    freeze: Annotated[
        str, typer.Option(help="decoder: train encoder and bridge only; none: train everything, write a whole model.")
    ] = "decoder",
    encoder_attention: Annotated[
        str | None, typer.Option(help="causal or bidirectional; the model's own by default.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Updates.")] = 300,
    batch_size: Annotated[int, typer.Option(help="Examples per update.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Peak rate of a cosine schedule.")] = 3e-4,
    seed: Annotated[int, typer.Option(help="Seed of the order of examples.")] = 0,
) -> None:
    """Tune an encoder for a task while the shared decoder stays frozen."""
    from graftlm.adaptation.store import save_graft
    from graftlm.adaptation.task_encoder import save_task_encoder
    from graftlm.data.collate import encode
    from graftlm.data.task import load_task
    from graftlm.files import check_new_folder
    from graftlm.training.tune import TuneSettings
    from graftlm.training.tune import tune as train

    check_new_folder(out)
    settings = TuneSettings(freeze=freeze, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    chosen = load_task(task)
    graft, tokenizer, _ = load(model)
    if encoder_attention is not None:
        graft.set_encoder_attention(encoder_attention)
    limit = chosen.source_limit(graft.config.max_position_embeddings)
    examples = [encode(record, chosen, tokenizer, limit) for record in chosen.records("train")]
    run = train(graft, examples, settings, progress_console(), title=chosen.name)
    run["data_sha256"] = chosen.data_hash("train")
    if freeze == "decoder":
        save_task_encoder(graft, out, name=chosen.name, task=chosen.settings(), run=run)
    else:
        save_graft(graft, tokenizer, out, run=run)
    last = run["losses"][-1][1] if run["losses"] else float("nan")
    typer.echo(f"{out}: {steps} updates in {run['seconds']} s, last training loss {last:.3f} nats per token.")
