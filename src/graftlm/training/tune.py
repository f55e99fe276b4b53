"""tune: train for one task or a mixture on transformers' Trainer."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, TrainingArguments

from graftlm.data.collate import Example
from graftlm.data.deferred import Item
from graftlm.data.mixture import Mixture
from graftlm.errors import ConfigError, TrainingError
from graftlm.model.bridge import Bridge
from graftlm.model.bridge_shares import BridgeShares, bridge_shares
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.activation_checkpointing import activation_checkpointing
from graftlm.training.bad_loss import LossGuard, places_in
from graftlm.training.batches import Batches
from graftlm.training.checkpoint import RunFolder, restore_history, restore_weights, step_of
from graftlm.training.freeze import FreezePlan
from graftlm.training.history import History
from graftlm.training.interrupt import stop_on_interrupt
from graftlm.training.keeper import RunKeeper
from graftlm.training.order import padding_share, target_tokens, training_order
from graftlm.training.phase_switch import PhaseSwitch, describe
from graftlm.training.prepare import prepare
from graftlm.training.progress import ProgressBar, say
from graftlm.training.ranks import world
from graftlm.training.settings import SCHEDULES, TuneSettings
from graftlm.training.sharding import copy_back, sharded_copy, take_over_sharding
from graftlm.training.teaching import Teaching
from graftlm.training.trainer import TuneTrainer, bf16_pays
from graftlm.training.upkeep import UPKEEP, Upkeep
from graftlm.training.workers import worker_failures
from graftlm.versions import versions

STOPPING = "Stopping after this update; press Ctrl-C again to stop at once."


def tune(
    model: GraftForConditionalGeneration,
    examples: Sequence[Item] | Mixture[Item],
    settings: TuneSettings,
    console: Console,
    title: str = "tuning",
    *,
    validation: Mapping[str, Sequence[Example]] | None = None,
    run_folder: RunFolder | None = None,
    resume: Path | None = None,
    upkeep: Upkeep = UPKEEP,
    teaching: Teaching | None = None,
) -> dict[str, Any]:
    """Train the parts of `model` that are not frozen, in place; returns the run record.

    Examples of one task count as a mixture of that one, named `title`. `validation` holds examples by task; the model
    ends with the weights of the lowest validation loss, or without any with the last; with an average, where one is
    asked for and the run is over. With a `run_folder` there are checkpoints, `resume` is the one to go on from, and the
    first Ctrl-C ends the run early (`interrupted_at`). `upkeep` says what is done about bad losses, memory and reports;
    `teaching` is what `open_teaching` makes of the same settings and examples.
    On CPUs with bf16 instructions and on GPUs the matrix products run in bf16; the weights stay in their dtype.
    Raises: ConfigError for settings that cannot work, TaskError for a mixture with an empty task, TrainingError for a
    bad loss and a checkpoint of another run, GraftError when a checkpoint cannot be written.
    """
    mixture = _taught(examples if isinstance(examples, Mixture) else Mixture.of({title: examples}), settings, teaching)
    history = _history(resume, run_folder, console)
    sharded = take_over_sharding(settings, run_folder)
    plan = show_plan(model, mixture, settings, console, title, teaching)
    before = bridge_shares(model.bridge)  # Of a resumed run too: its weights are restored later.
    size, budget = settings.batch_size, settings.batch_tokens
    order = training_order(mixture, settings.steps, settings.seed, batch_size=size, batch_tokens=budget)
    bar = ProgressBar(title, console, [target_tokens(batch) for batch in order])
    switch = [PhaseSwitch(model, plan, settings.begins, bar.say)] if settings.phases else []
    # Without a place to go on from, Ctrl-C is the caller's business.
    stopping = nullcontext(lambda: False) if run_folder is None else stop_on_interrupt(lambda: bar.say(STOPPING))
    with tempfile.TemporaryDirectory() as scratch, stopping as stop, closing(bar):
        keeper = RunKeeper(
            history,
            settings,
            validation=validation or {},
            rates=mixture.rates,
            folder=run_folder,
            scratch=Path(scratch),
            stop=stop,
            report=bar.validated,
        )
        trainer = {
            "args": _arguments(settings, upkeep, scratch),
            "train_dataset": Batches(order, settings.packing, settings.accumulation * world()),
            "callbacks": [bar, keeper, *switch],
            "guard": LossGuard(history, upkeep, places_in(mixture, order), run_folder),
            "settings": settings,
            "teaching": teaching,
        }
        step = _train(model, trainer, upkeep, resume, sharded)
        kept = keeper.restore(model, step)
    model.eval()
    record = _record(settings, plan, mixture, history, order[:step])
    record["teacher"] = None if teaching is None else teaching.record
    return record | kept | {"interrupted_at": keeper.interrupted_at, "bridge": _bridge_record(model.bridge, before)}


def show_plan(
    model: GraftForConditionalGeneration,
    mixture: Mixture[Item],
    settings: TuneSettings,
    console: Console,
    title: str,
    teaching: Teaching | None = None,
) -> FreezePlan:
    """Give the model the parts that train, freeze the others, and print what that comes to."""
    plan = prepare(model, settings)
    for name, rows in mixture.examples.items():
        share = f", {mixture.rates[name]:.1%} of the draws" if len(mixture.examples) > 1 else ""
        say(console, f"{name}: {len(rows):,} examples{share}")
    if teaching is not None:
        say(console, str(teaching))
    console.print(plan.table())
    for number, phase in enumerate(plan.phases if settings.phases else ()):
        say(console, describe(plan.phases, number, settings.begins[number] + 1))
        console.print(phase.table())
    say(console, f"{title}: {plan.trainable:,} parameters train, {plan.frozen:,} are frozen")
    return plan


def _taught(mixture: Mixture[Item], settings: TuneSettings, teaching: Teaching | None) -> Mixture[Item]:
    if teaching is None and settings.teacher is not None:
        raise ConfigError("The settings name a teacher; give tune what open_teaching makes of them as `teaching`.")
    return mixture if teaching is None else teaching.mixture(mixture)


def _history(resume: Path | None, run_folder: RunFolder | None, console: Console) -> History:
    """Of a new run, or of the one that goes on from a checkpoint, which must be of this run."""
    if resume is None:
        return History()
    assert run_folder is not None, "a checkpoint to resume from lies in a run folder"
    run_folder.check_identity(resume)
    say(console, f"Going on after update {step_of(resume):,}, from {resume}")
    return restore_history(resume)


def _train(
    model: GraftForConditionalGeneration, parts: Mapping[str, Any], upkeep: Upkeep, resume: Path | None, sharded: bool
) -> int:
    """Train to the end or to an interruption with a Trainer of these parts; returns the update that was reached."""
    trained = sharded_copy(model) if sharded else model
    trainer = TuneTrainer(model=trained, data_collator=Batches.collate, **parts)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    if resume is not None and step_of(resume) >= trainer.args.max_steps:
        # All updates are done; only what comes after them is missing.
        restore_weights(model, resume)
        return trainer.args.max_steps
    with activation_checkpointing(trained, upkeep.activation_checkpointing), worker_failures():
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    # Back to the model's own precision: mixed precision is for training.
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if sharded:
        copy_back(trained, model)
    return int(trainer.state.global_step)


def _record(
    settings: TuneSettings,
    plan: FreezePlan,
    mixture: Mixture[Item],
    history: History,
    batches: Sequence[Sequence[Item]],
) -> dict[str, Any]:
    history.flush(len(batches))
    if not history.losses:
        raise TrainingError("Every update was skipped for a bad loss, so nothing was trained; lower the learning rate.")
    seconds = history.seconds - history.validation_seconds
    tokens = sum(map(target_tokens, batches))
    return {
        "settings": dataclasses.asdict(settings),
        "mixture": {
            name: {"examples": len(rows), "rate": mixture.rates[name]} for name, rows in mixture.examples.items()
        },
        "parameters": {"trainable": plan.trainable, "frozen": plan.frozen},
        "keeps_decoder": plan.keeps_decoder,
        "freeze_plan": [dataclasses.asdict(row) for row in plan.rows],
        "phases": [
            {"begins_after": begin, "trainable": phase.trainable, "trains": phase.groups}
            for begin, phase in zip(settings.begins, plan.phases, strict=True)
        ],
        "losses": history.losses,
        "validation": history.validation,
        "skipped": history.skipped,
        "seconds": round(history.seconds, 1),
        "validation_seconds": round(history.validation_seconds, 1),
        "target_tokens_per_second": round(tokens / seconds, 1),
        "padding": 0.0 if settings.packing else round(padding_share(batches), 4),
        "resumed_at": history.resumed_at,
        "bf16": bf16_pays(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": versions(),
    }


def _bridge_record(bridge: Bridge, before: BridgeShares) -> dict[str, Any] | None:
    """Shares before training and in the weights that are kept, of a bridge with weights for what it reads."""
    if not bridge.config.weighs:
        return None
    after = bridge_shares(bridge).rows
    return {"kind": bridge.config.kind, "states": before.states, "before": before.rows, "after": after}


def _arguments(settings: TuneSettings, upkeep: Upkeep, scratch: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=scratch,
        max_steps=settings.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type=SCHEDULES[settings.schedule],
        lr_scheduler_kwargs={"num_decay_steps": settings.decay_steps} if settings.schedule == "wsd" else None,
        optim="adamw_torch_fused",
        seed=settings.seed,
        bf16=bf16_pays(),
        use_cpu=not torch.cuda.is_available(),
        ddp_backend=None if torch.cuda.is_available() or world() == 1 else "gloo",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_num_workers=upkeep.workers,
        # Documents are shared with the workers, not copied; Ctrl-C is handled for them (interrupt.py).
        dataloader_multiprocessing_context="fork" if upkeep.workers else None,
        # The batches come ready and in order; every loss is seen, and one that is not finite is not hidden.
        train_sampling_strategy="sequential",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=upkeep.report_to,
        disable_tqdm=True,
    )
