"""The report of the steering study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftlm.reports import blocks
from graftlm.reports.page import Html, Page, Section, element
from graftlm.reports.tables import seconds_text, table
from graftlm.studies.steering.arms import ADAPTED, ENCODER, EVERYTHING

Cells = Sequence[Mapping[str, Any]]

KEPT = "share of what tuning everything gains (95 %)"
ARM_COLUMNS = ("tuned", "trains", "loss", "source gain", KEPT, "seeds", "rate")


def study_page(results: Mapping[str, Any]) -> Page:
    """The page of the study's results so far, as results.json holds them."""
    cells = results["cells"]
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    starts = table("Starts", START_COLUMNS, grafts(results["starts"]))
    sections = [Section("What was done", [_words(results), starts])]
    for task in tasks:
        here = [cell for cell in cells if cell["task"] == task]
        main = [cell for cell in here if cell["start"] == ADAPTED]
        parts = [table(f"What is tuned, from start {ADAPTED}", arm_columns(main), arm_rows(main))] if main else []
        parts += _gains({cell["arm"]: cell for cell in main}, f"Source gain on {task} by what is tuned")
        compared = [cell for cell in here if cell["arm"] in (ENCODER, EVERYTHING)]
        parts.append(table("Where the graft begins", ["start", *arm_columns(compared)], start_rows(compared)))
        encoders = {cell["start"]: cell for cell in here if cell["arm"] == ENCODER}
        parts += _gains(encoders, f"Source gain on {task} by start, encoder tuned")
        sections.append(Section(f"Task {task}", parts))
    copying = [cell for cell in cells if cell["start"] == ADAPTED and cell["arm"] in (ENCODER, EVERYTHING)]
    if copying:
        sections.append(Section("Copying", [table("Source gain and copying", COPY_COLUMNS, copy_rows(copying))]))
    untuned = [cell for cell in cells if "pulls" in cell]
    if untuned:
        sections.append(
            Section("Before tuning", [table(PULLS, ["start", "task", *pulled(untuned)], pull_rows(untuned))])
        )
    lead = (
        "When does a frozen decoder read what an encoder is tuned to say? Same data in the same order, same batches, "
        "same updates, same search for a learning rate in every arm."
    )
    return Page(f"Steering study, scale {results['scale']}", lead, sections)


START_COLUMNS = ("start", "what", "updates of everything", "rate", "validation loss", "source gain")


def grafts(starts: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row for each start that is there, with its last validation."""
    rows = []
    for name, start in starts.items():
        found = (
            [f"{start['validation'][-1][part]:.3f}" for part in ("loss", "source_gain")]
            if start["updates"]
            else ["–"] * 2
        )
        rows.append(
            [name, start["title"], f"{start['updates']:,}", f"{start['rate']:g}" if start["rate"] else "–", *found]
        )
    return rows


def arm_columns(cells: Cells) -> list[str]:
    """Names of the columns of arm_rows: with the task's metric."""
    metrics = dict.fromkeys(cell["metric"] for cell in cells)
    return [ARM_COLUMNS[0], *metrics, *ARM_COLUMNS[1:]]


def arm_rows(cells: Cells) -> list[list[str]]:
    """A row for each arm of one task."""
    return [[cell["arm"], *_figures(cell)] for cell in cells]


def start_rows(cells: Cells) -> list[list[str]]:
    """A row for each start and arm of one task."""
    return [[cell["start"], cell["arm"], *_figures(cell)] for cell in cells]


COPY_COLUMNS = (
    "task",
    "tuned",
    "words of targets that stand in sources",
    "source gain, least copying",
    "source gain, most copying",
)


def copy_rows(cells: Cells) -> list[list[str]]:
    """A row for each task and arm: source gain on the halves of the examples with least and most copying."""
    gains = COPY_COLUMNS[3:]
    return [
        [cell["task"], cell["arm"], f"{cell['copied']:.0%}", *(_number(cell["metrics"], name) for name in gains)]
        for cell in cells
    ]


PULLS = "Shares of the parts in the gradient of the loss, by the sum of absolute values"


def pulled(cells: Cells) -> list[str]:
    """The groups of parts that have a gradient."""
    return list(dict.fromkeys(group for cell in cells for group in cell["pulls"]))


def pull_rows(cells: Cells) -> list[list[str]]:
    """A row for each start and task: what share of the gradient stands in each group of `pulled`."""
    rows, groups = [], pulled(cells)
    for cell in cells:
        norms = {group: norm["l1"] for group, norm in cell["pulls"].items()}
        shares = [f"{norms[group] / sum(norms.values()):.0%}" if group in norms else "–" for group in groups]
        rows.append([cell["start"], cell["task"], *shares])
    return rows


def _figures(cell: Mapping[str, Any]) -> list[str]:
    metrics, kept = cell["metrics"], cell.get("kept")
    share = "–" if kept is None else f"{kept['value']:.0%} ({kept['low']:.0%} to {kept['high']:.0%})"
    return [
        f"{metrics[cell['metric']]:.1f}",
        f"{cell['parameters']:,}" if "parameters" in cell else "nothing",
        f"{metrics['loss']:.3f}",
        f"{metrics['source_gain']:.3f}",
        share,
        str(cell["seeds"]),
        f"{cell['rate']:g}" if cell["rate"] else "–",
    ]


def _number(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f}" if name in metrics else "–"


def _gains(cells: Mapping[str, Mapping[str, Any]], title: str) -> list[Html]:
    lines = {name: cell["source_gains"] for name, cell in cells.items() if "source_gains" in cell}
    return [blocks.curves(lines, title, blocks.SOURCE_GAIN)] if lines else []


def _words(results: Mapping[str, Any]) -> Html:
    done, planned = results["jobs"]
    sentences = [
        f"All of a graft of {results['model']} is trained on texts and tasks. Then the decoder is frozen, but in "
        "the arms that say otherwise, and each task is tuned alone.",
        "Loss and source gain are of test examples, in nats per target token.",
        f"All training together took {seconds_text(results['training_seconds'])} of single threads.",
    ]
    if done < planned:
        sentences.insert(0, f"Not finished: {done} of at least {planned} jobs are done.")
    return element("p", " ".join(sentences))
