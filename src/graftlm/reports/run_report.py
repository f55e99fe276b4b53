"""The report of training runs and evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graftlm.reports import blocks
from graftlm.reports.blocks import SampleRow
from graftlm.reports.figures import Curve
from graftlm.reports.page import Html, Page, Section, element
from graftlm.reports.records import Bridge, Evaluation, Records, Run, Settings, Training
from graftlm.reports.tables import bytes_text, seconds_text, table

SAMPLES = 5
"""Examples that are shown of each task."""


def run_report(records: Records) -> Page:
    """What was trained, how the losses fell, what it is worth, and samples; a part without records is left out."""
    sections = []
    if records.runs:
        curves = {name: curve(run.training) for name, run in records.runs.items()}
        sections.append(Section("What was trained", [_trained(records.runs)]))
        gains = {name: found for name, run in records.runs.items() if (found := gain_curve(run.training))}
        figures = [blocks.curves(gains, "Source gain", blocks.SOURCE_GAIN)] if gains else []
        sections.append(Section("Learning curves", [blocks.learning_curves(curves), *figures]))
    bridges = {name: run.training.bridge for name, run in records.runs.items() if run.training.bridge is not None}
    if bridges:
        sections.append(Section("Bridges", [_bridge(name, bridge) for name, bridge in bridges.items()]))
    if records.evaluations:
        groups = _groups(records.evaluations)
        sections.append(Section("Results", [_results(title, arms) for title, arms in groups]))
        sections.append(Section("Samples", [_samples(title, arms) for title, arms in groups]))
    counts = (_count(len(records.runs), "training run"), _count(len(records.evaluations), "evaluation"))
    return Page("graftlm report", f"Made of the records of {counts[0]} and {counts[1]}.", sections)


def curve(training: Training) -> Curve:
    """The losses of a run."""
    return Curve(training.losses, [(entry.step, entry.loss) for entry in training.validation])


def gain_curve(training: Training) -> list[tuple[int, float]]:
    """Source gains of a run, as (update, nats per target token)."""
    return [(entry.step, entry.source_gain) for entry in training.validation if entry.source_gain is not None]


def _trained(runs: Mapping[str, Run]) -> Html:
    described = [_describe(run) for run in runs.values()]
    rows = [[name, *(one[name] for one in described)] for name in described[0]]
    return table("Runs", ["", *runs], rows, figures=False)


def _describe(run: Run) -> dict[str, str]:
    training, settings = run.training, run.training.settings
    tasks = training.mixture.items()
    updates = f"{training.interrupted_at or settings.steps:,}"
    if training.interrupted_at is not None:
        updates += f" of {settings.steps:,} (interrupted)"
    best = training.best
    return {
        "tasks": ", ".join(f"{name} ({share.examples:,} examples{_rate(share.rate)})" for name, share in tasks),
        "baseline": settings.baseline or "–",
        "adapters": _adapters(settings),
        "freeze plan": settings.freeze or "; then ".join(phase.freeze for phase in settings.phases),
        "trains": _names(group.group for group in training.freeze_plan if group.trains),
        "frozen": _names(group.group for group in training.freeze_plan if not group.trains),
        "trainable parameters": f"{training.parameters.trainable:,}",
        "frozen parameters": f"{training.parameters.frozen:,}",
        "stored weights": bytes_text(run.stored_bytes),
        "updates": updates,
        "best validation loss": "–" if best is None else f"{best.loss:.3f}, after {best.step:,} updates",
        "source gain then": "–" if best is None or best.source_gain is None else f"{best.source_gain:.3f}",
        "average": _average(training),
        "batch size": _batch(settings),
        "learning rate": f"{settings.learning_rate:g}",
        "loss": _loss(training),
        "seed": str(settings.seed),
        "time": seconds_text(training.seconds),
        "device": training.device,
    }


def _average(training: Training) -> str:
    if training.average is None:
        return "–"
    loss = "" if training.average.loss is None else f", validation loss {training.average.loss:.3f}"
    return f"of the weights after {', '.join(f'{step:,}' for step in training.average.steps)} updates{loss}"


def _loss(training: Training) -> str:
    settings, teacher = training.settings, training.teacher
    found = ["cross-entropy"]
    found += [f"label smoothing {settings.label_smoothing:g}"] if settings.label_smoothing else []
    found += [f"z-loss {settings.z_loss:g}"] if settings.z_loss else []
    if teacher is not None:
        found.append(f"teacher {teacher.source}, weight {teacher.weight:g}, temperature {teacher.temperature:g}")
    return "; ".join(found)


def _adapters(settings: Settings) -> str:
    rank = "" if settings.adapter_rank is None else f" of rank {settings.adapter_rank}"
    found = [f"encoder: LoRA of rank {settings.lora}"] if settings.lora is not None else []
    found += [f"decoder: {settings.decoder_adapter}{rank}"] if settings.decoder_adapter is not None else []
    return "; ".join(found) or "none"


def _bridge(name: str, bridge: Bridge) -> Html:
    maps = {"before training": bridge.before, "after training": bridge.after}
    title = f"{name}, bridge {bridge.kind}"
    return element("div", element("h3", title), blocks.bridge(maps, bridge.states, title))


def _batch(settings: Settings) -> str:
    size = f"{settings.batch_tokens:,} tokens" if settings.batch_size is None else f"{settings.batch_size:,}"
    return f"{size}, packed" if settings.packing else size


def _results(title: str, arms: Mapping[str, Evaluation]) -> Html:
    metrics = blocks.metrics({name: record.metrics for name, record in arms.items()}, title)
    return element("div", element("h3", title), metrics)


def _samples(title: str, arms: Mapping[str, Evaluation]) -> Html:
    outputs: dict[str, dict[str, str]] = {}
    references: dict[str, list[str]] = {}
    for name, record in arms.items():
        for sample in record.samples[:SAMPLES]:
            output = sample.prediction if sample.prediction is not None else sample.choice
            outputs.setdefault(sample.source, {})[name] = output or ""
            references[sample.source] = sample.references
    rows = [SampleRow(source, texts, references[source]) for source, texts in outputs.items()]
    return element("div", element("h3", title), blocks.samples(rows))


def _groups(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, dict[str, Evaluation]]]:
    """Evaluations of the same examples together, with a title for each group."""
    groups: dict[tuple[str, str, int, str], dict[str, Evaluation]] = {}
    for name, record in evaluations.items():
        key = (record.task, record.split, record.n, record.data_sha256)
        groups.setdefault(key, {})[name] = record
    return [(f"{task}, {n:,} {split} examples", arms) for (task, split, n, _), arms in groups.items()]


def _rate(rate: float) -> str:
    return "" if rate == 1 else f", {rate:.1%} of the draws"


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
