"""graftlm demo: the whole story on the embedded language model, on a CPU, offline."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftlm.cli.common import Bar, load, print_table, progress_console

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from graftlm.data.records import Record
    from graftlm.model.modeling import GraftForConditionalGeneration

SOURCE = "embedded-lm"
TASK = "e2e_nlg"
CHECKED = 16
"""Test sentences whose logits are compared with the stock model's."""


def demo(
    out: Annotated[
        Path | None, typer.Option(help="New folder to keep everything in; nothing is kept without it.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Updates of the task encoder.", min=1)] = 300,
    learning_rate: Annotated[float, typer.Option(help="Peak rate of a cosine schedule.")] = 3e-3,
    limit: Annotated[int | None, typer.Option(help="Only the first so many test examples.", min=2)] = None,
) -> None:
    """Graft the embedded language model, tune a task encoder on its frozen decoder, and compare before and after."""
    from graftlm.adaptation.adapt import adapt_to_folder
    from graftlm.adaptation.task_encoder import save_task_encoder
    from graftlm.data.collate import encode
    from graftlm.data.task import load_task
    from graftlm.files import write_json
    from graftlm.training.settings import TuneSettings
    from graftlm.training.tune import tune

    task = load_task(TASK)
    with _folder(out) as folder:
        typer.echo(f"1. Graft {SOURCE} (recipe lossless) and compare it with stock transformers")
        adapt_to_folder(SOURCE, folder / "graft")
        model, tokenizer, _ = load(str(folder / "graft"))
        check = _compare_with_stock(model, tokenizer, task.records("test")[:CHECKED])

        typer.echo(f"2. Tune an encoder for {TASK} with the decoder frozen ({steps} updates)")
        before = _evaluate(model, tokenizer, task, None, limit)
        model.set_encoder_attention("bidirectional")
        source_limit = task.source_limit(model.config.max_position_embeddings)
        examples = [encode(record, task, tokenizer, source_limit) for record in task.records("train")]
        settings = TuneSettings(steps=steps, learning_rate=learning_rate)
        run = tune(model, examples, settings, progress_console(), title=TASK)
        save_task_encoder(model, folder / "task-encoder", name=TASK, tasks=[task.settings()], run=run)

        typer.echo("3. Load the task encoder onto the graft and evaluate")
        model, tokenizer, _ = load(str(folder / "graft"), folder / "task-encoder")
        check |= _same_as_donor(model)
        after = _evaluate(model, tokenizer, task, TASK, limit)
        write_json(folder / "demo.json", {"check": check, "before": before, "after": after, "run": run})
        _show(before, after, folder, run)
    if out is not None:
        typer.echo(f"Kept in {out}: graft, task encoder and demo.json with all records.")


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    from graftlm.files import atomic_folder

    if out is not None:
        with atomic_folder(out) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _compare_with_stock(
    model: GraftForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, records: list[Record]
) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    from graftlm.families.locate import locate

    stock = AutoModelForCausalLM.from_pretrained(locate(SOURCE), dtype=model.dtype, local_files_only=True).eval()
    worst = 0.0
    tokens = equal = 0
    for record in records:
        source = tokenizer(record.source, return_tensors="pt").input_ids
        target = tokenizer(record.target, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            ours = model(input_ids=source, labels=target).logits
            theirs = stock(torch.cat((source, target[:, :-1]), dim=1)).logits[:, source.shape[1] - 1 :]
            greedy: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False}
            mine = model.generate(source, **greedy)
            reference = stock.generate(source, **greedy)[:, source.shape[1] :]
        worst = max(worst, float((ours - theirs).abs().max()))
        tokens += target.shape[1]
        equal += int(mine.shape == reference.shape and bool((mine == reference).all()))
    typer.echo(
        f"   Largest logit difference over {tokens:,} target tokens of {len(records)} examples: {worst:.1e}; "
        f"the same greedy continuation for {equal} of {len(records)}."
    )
    return {"examples": len(records), "target_tokens": tokens, "logit_difference": worst, "same_greedy": equal}


def _evaluate(
    model: GraftForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    task: Any,
    encoder: str | None,
    limit: int | None,
) -> dict[str, Any]:
    from graftlm.evaluation.evaluator import evaluate

    with Bar("evaluating") as bar:
        return evaluate(
            model, tokenizer, task, "test", limit=limit, model_name=SOURCE, encoder_name=encoder, progress=bar
        )


def _same_as_donor(model: GraftForConditionalGeneration) -> dict[str, int]:
    import torch

    from graftlm.families.donor import open_donor
    from graftlm.families.locate import locate

    donor = open_donor(locate(SOURCE))
    held = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("decoder.")}
    same = sum(torch.equal(donor.read(name).to(tensor.dtype), tensor) for name, tensor in held.items())
    typer.echo(f"   {same} of {len(held)} decoder tensors equal the language model's, bit for bit.")
    return {"decoder_tensors": len(held), "same_decoder_tensors": same}


def _show(before: dict[str, Any], after: dict[str, Any], folder: Path, run: dict[str, Any]) -> None:
    def cell(metric: dict[str, float]) -> str:
        return f"{metric['value']:.2f} ({metric['low']:.2f} to {metric['high']:.2f})"

    rows = [[name, cell(before["metrics"][name]), cell(after["metrics"][name])] for name in after["metrics"]]
    columns = ["metric (95 % interval)", "un-tuned graft", "tuned encoder, frozen decoder"]
    print_table(f"{TASK}: {after['n']} test examples, {run['seconds']} s of tuning", columns, rows)
    for kind, path in (("graft", "graft/model.safetensors"), ("task encoder", "task-encoder/model.safetensors")):
        typer.echo(f"{kind}: {(folder / path).stat().st_size / 1e6:.1f} MB on disk")
    for sample in after["samples"][:3]:
        typer.echo(f"\nsource:     {sample['source']}\nprediction: {sample['prediction']}")
        typer.echo(f"reference:  {sample['references'][0]}")
    gain = after["metrics"]["source_gain"]
    typer.echo("")
    if gain["low"] > 0:
        typer.echo("The frozen decoder reads the tuned encoder: another example's source costs clearly more loss.")
    else:
        typer.echo("Source gain is not clearly above 0: at this size and budget the decoder hardly reads the encoder.")
    typer.echo(f"This is one seed, one task and a tiny model, evaluated on {after['n']} examples.")
