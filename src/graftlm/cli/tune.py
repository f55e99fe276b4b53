"""graftlm tune: one encoder on a frozen decoder, for a task or a mixture of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import typer

from graftlm.cli import tune_options as options
from graftlm.cli.common import INTERRUPTED, load, progress_console
from graftlm.errors import ConfigError, GraftError, TaskError

if TYPE_CHECKING:
    from graftlm.data.collate import Example
    from graftlm.data.deferred import Item
    from graftlm.data.mixture import Mixture
    from graftlm.data.task import Task
    from graftlm.data.text_task import TextTask
    from graftlm.data.tokenizers import Tokenizers
    from graftlm.model.modeling import GraftForConditionalGeneration
    from graftlm.training.checkpoint import RunFolder
    from graftlm.training.settings import TuneSettings
    from graftlm.training.upkeep import Upkeep

Settings = TypeVar("Settings")
WRITTEN = (
    "task_encoder.json",
    "encoder_adapter",
    "decoder_adapter",
    "README.md",
    "model*.safetensors",
    "*.index.json",
    "*config.json",
    "run.json",
    "token*",
    "*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.spm",
    "*.model",
    "source_tokenizer",
)
"""Files that tuning writes into OUT; with anything else there, OUT is not replaced."""


def tune(
    model: options.Model,
    task: options.Tasks,
    out: options.Out,
    freeze: options.Freeze = None,
    phases: options.Phases = None,
    share_layers: options.ShareLayers = False,
    lora: options.Lora = None,
    decoder_adapter: options.DecoderAdapter = "none",
    adapter_rank: options.AdapterRank = None,
    baseline: options.Baseline = None,
    encoder_attention: options.EncoderAttention = None,
    rates: options.Rates = "sqrt",
    temperature: options.Temperature = None,
    steps: options.Steps = 300,
    batch_size: options.BatchSize = None,
    batch_tokens: options.BatchTokens = None,
    packing: options.Packing = False,
    accumulation: options.Accumulation = 1,
    learning_rate: options.LearningRate = 3e-4,
    warmup_steps: options.WarmupSteps = 20,
    schedule: options.Schedule = "cosine",
    decay_share: options.DecayShare = None,
    optimizer: options.Optimizer = "adamw",
    label_smoothing: options.LabelSmoothing = 0.0,
    z_loss: options.ZLoss = 0.0,
    teacher: options.Teacher = None,
    teacher_weight: options.TeacherWeight = None,
    teacher_temperature: options.TeacherTemperature = None,
    teacher_keep: options.TeacherKeep = None,
    teacher_k: options.TeacherK = None,
    eval_every: options.EvalEvery = 100,
    average: options.Average = None,
    eval_limit: options.EvalLimit = 256,
    seed: options.Seed = 0,
    on_bad_loss: options.OnBadLoss = "stop",
    spike: options.Spike = None,
    keep_checkpoints: options.KeepCheckpoints = 1,
    activation_checkpointing: options.ActivationCheckpointing = False,
    workers: options.Workers = 0,
    report_to: options.ReportTo = "none",
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
) -> None:
    """Tune an encoder while the shared decoder stays frozen. Ctrl-C leaves what was reached, in OUT."""
    _tune(dict(locals()))


def _tune(given: Mapping[str, Any]) -> None:
    """`tune`, with its options by their names."""
    from graftlm.training import tune as training
    from graftlm.training.checkpoint import RunFolder
    from graftlm.training.ranks import is_first, wait
    from graftlm.training.teaching import open_teaching

    out, limit = given["out"].absolute(), given["eval_limit"]
    checkpoint = _checkpoint(out, given["resume"])
    settings, upkeep = _settings(given)
    tasks, (graft, tokenizers) = _tasks(given["task"]), _graft(given["model"], given["encoder_attention"])
    mixture = _mixture(graft, tokenizers, tasks, given)
    validation = _validation(graft, tokenizers, tasks, limit)
    teaching = open_teaching(settings, mixture, tokenizers, graft.config.decoder.vocab_size)
    title = "+".join(mixture.examples)
    what = (graft, mixture, settings, progress_console(), title)
    if given["dry_run"]:
        training.show_plan(*what, teaching)
        return
    told = {"eval_limit": limit, "rates": mixture.rates, "settings": asdict(settings)}
    identity = _identity(graft, tasks, **told, teacher=None if teaching is None else teaching.record)
    folder = RunFolder(_run_path(out), identity, upkeep.keep_checkpoints)
    run = training.tune(
        *what, validation=validation, run_folder=folder, resume=checkpoint, upkeep=upkeep, teaching=teaching
    )
    wait()  # Others may still read what the first, which writes for all, is about to remove.
    if is_first():
        run |= {name: identity[name] for name in ("tasks", "data_sha256", "eval_limit")}
        run["model"] = {"path": given["model"], "sha256": identity["model"]}
        _save(graft, tokenizers, out, title, tasks, run, replace=checkpoint is not None)
        _finish(out, run, folder)


def _settings(given: Mapping[str, Any]) -> tuple[TuneSettings, Upkeep]:
    """Options of `tune` that are settings of the run or of its upkeep, which have the same names."""
    from graftlm.training.phase import read_phases
    from graftlm.training.settings import TuneSettings
    from graftlm.training.upkeep import Upkeep

    adapter = given["decoder_adapter"]
    read = {"phases": read_phases(given["phases"]), "decoder_adapter": None if adapter == "none" else adapter}
    return _pick(TuneSettings, {**given, **read}), _pick(Upkeep, given)


def _pick(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Settings of a kind, from those of the options that are its fields."""
    names = {field.name for field in fields(cast(Any, kind))}
    return kind(**{name: value for name, value in given.items() if name in names})


def _graft(model: str, encoder_attention: str | None) -> tuple[GraftForConditionalGeneration, Tokenizers]:
    graft, tokenizers, _ = load(model)
    if encoder_attention is not None:
        graft.set_encoder_attention(encoder_attention)
    return graft, tokenizers


def _finish(out: Path, run: dict[str, Any], folder: RunFolder) -> None:
    typer.echo(f"{out}: {_summary(run)}")
    if run["interrupted_at"] is not None:
        typer.echo(f"Interrupted; the same command with --resume goes on from {folder.last()}.", err=True)
        raise typer.Exit(INTERRUPTED)
    folder.remove()


def _mixture(
    graft: GraftForConditionalGeneration,
    tokenizers: Tokenizers,
    tasks: Sequence[Task | TextTask],
    given: Mapping[str, Any],
) -> Mixture[Item]:
    from graftlm.data.mixture import Mixture, parse_rates

    rates, temperature = given["rates"], given["temperature"]
    if temperature is not None and rates != "temperature":
        raise ConfigError("--temperature belongs to --rates temperature; leave it out or choose those rates.")
    examples = {t.name: examples_of(t, "train", tokenizers, _room(graft), given["seed"]) for t in tasks}
    return Mixture.of(examples, parse_rates(rates), 2.0 if temperature is None else temperature)


def _validation(
    graft: GraftForConditionalGeneration, tokenizers: Tokenizers, tasks: Sequence[Task | TextTask], limit: int
) -> dict[str, list[Example]]:
    from graftlm.data.deferred import made

    # A recipe's value comes past the option's own check.
    if limit < 1:
        raise ConfigError(f"eval_limit is {limit}; it must be at least 1.")
    found = {t.name: examples_of(t, "validation", tokenizers, _room(graft), 0, limit) for t in tasks if t.validation}
    examples = {name: [made(item) for item in items[:limit]] for name, items in found.items()}
    unseen = [t.name for t in tasks if not t.validation]
    if examples and unseen:
        typer.echo(f"No validation data for {', '.join(unseen)}: the best weights are chosen by the others.", err=True)
    return examples


def _run_path(out: Path) -> Path:
    return out.with_name(out.name + ".run")


def _checkpoint(out: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from. Raises: GraftError where that, or starting anew, would lose something."""
    from graftlm.files import check_new_folder
    from graftlm.training.checkpoint import RunFolder, step_of

    if not out.name:
        raise GraftError(f"{out} is no name for a new folder; choose another --out.")
    folder = RunFolder(_run_path(out), {})
    folder.check()
    checkpoint = folder.last()
    if checkpoint is None or not _left_by_interruption(out):
        check_new_folder(out)
    if checkpoint is not None and not resume:
        raise GraftError(
            f"{folder.path} holds an unfinished run of {step_of(checkpoint)} updates; add --resume to go on with it, "
            "or remove it to start anew."
        )
    if checkpoint is None and resume:
        typer.echo(f"No checkpoint in {folder.path}; starting from the beginning.", err=True)
    whole = folder.last_whole()
    if whole != checkpoint:
        typer.echo(f"{checkpoint} is damaged; going on from {whole}.", err=True)
    return whole


def _left_by_interruption(out: Path) -> bool:
    from graftlm.adaptation.store import RUN
    from graftlm.adaptation.task_encoder import MANIFEST
    from graftlm.families.stock_config import read_json

    if (out / MANIFEST).is_file():
        run = read_json(out / MANIFEST).get("run", {})
    else:
        run = read_json(out / RUN) if (out / RUN).is_file() else {}
    if run.get("interrupted_at") is None:
        return False
    others = sorted(p.name for p in out.iterdir() if not any(fnmatch(p.name, pattern) for pattern in WRITTEN))
    if others:
        raise GraftError(f"{out} holds {others[0]}, which going on would replace; move it away first.")
    return True


def _tasks(sources: Sequence[str]) -> list[Task | TextTask]:
    from graftlm.data.text_task import load_training_task

    tasks = [load_training_task(source) for source in sources]
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise TaskError(f"Two of the tasks are called {name!r}; give each a name of its own.")
    return tasks


def _room(graft: GraftForConditionalGeneration) -> tuple[int, int | None]:
    return graft.config.max_position_embeddings, graft.config.source_positions


def examples_of(
    task: Task | TextTask,
    split: str,
    tokenizers: Tokenizers,
    positions: tuple[int, int | None],
    seed: int,
    limit: int | None = None,
) -> Sequence[Item]:
    """As objectives.task_examples, and says what of the texts was left out."""
    from graftlm.objectives.task_examples import task_examples
    from graftlm.objectives.text_examples import TextExamples

    found = task_examples(task, split, tokenizers, positions, seed, limit)
    if isinstance(found, TextExamples) and str(found.documents.skipped):
        typer.echo(f"{task.name}, {split}: left out {found.documents.skipped}.", err=True)
    return found


def _identity(graft: GraftForConditionalGeneration, tasks: Sequence[Task | TextTask], **more: Any) -> dict[str, Any]:
    """What a resumed run must share with its beginning: model, tasks and data, and `more`."""
    from graftlm.adaptation.fingerprint import model_hash

    return {
        "model": model_hash(graft),
        "encoder_attention": graft.config.encoder_attention,
        "tasks": {task.name: task.settings() for task in tasks},
        "data_sha256": {
            task.name: {split: task.data_hash(split) for split in ("train", "validation") if getattr(task, split)}
            for task in tasks
        },
        **more,
    }


def _save(
    graft: GraftForConditionalGeneration,
    tokenizers: Tokenizers,
    out: Path,
    name: str,
    tasks: Sequence[Task | TextTask],
    run: dict[str, Any],
    replace: bool,
) -> None:
    from graftlm.adaptation.store import save_graft
    from graftlm.adaptation.task_encoder import save_task_encoder
    from graftlm.data.task import Task
    from graftlm.data.text_task import TextTask

    if run["keeps_decoder"]:
        pairs = [task for task in tasks if isinstance(task, Task)]
        # Text has no templates; an encoder of text alone takes sources as they are.
        texts = [task.as_pairs() for task in tasks if isinstance(task, TextTask)]
        settings = [task.settings() for task in pairs or texts]
        save_task_encoder(graft, out, name=name, tasks=settings, run=run, replace=replace)
    else:
        save_graft(graft, tokenizers, out, run=run, replace=replace)


def _summary(run: dict[str, Any]) -> str:
    steps = run["interrupted_at"] or run["settings"]["steps"]
    text = f"{steps} updates in {run['seconds']} s, last training loss {run['losses'][-1][1]:.3f} nats per token"
    best, average = run["best"], run["average"]
    if average is not None:
        loss = "" if average["loss"] is None else f" (validation loss {average['loss']:.3f})"
        return f"{text}; the weights are the mean of those of updates {', '.join(map(str, average['steps']))}{loss}."
    if best is None:
        return f"{text}; the weights are those of the last update."
    return f"{text}; the weights are those of update {best['step']}, the best validation loss ({best['loss']:.3f})."
