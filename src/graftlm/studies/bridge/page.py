"""The report of the bridge study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from graftlm.reports import blocks
from graftlm.reports.figures import Curve
from graftlm.reports.page import Html, Page, Section, element
from graftlm.reports.tables import seconds_text, table
from graftlm.studies.bridge.arms import OTHER_TASK, SCRATCH, STACKED, TUNED, UNFROZEN
from graftlm.studies.results import difference_text, mean_points

COLUMNS = ("arm", "BLEU", "short", "long", "chrF", "loss", "against", "difference in BLEU (95 %)", "by seed", "rate")
GROUPS: dict[str, Callable[[str], bool]] = {
    "Fine-tuned from the trained base": lambda name: name in TUNED or name in STACKED,
    "From scratch": lambda name: name in SCRATCH,
    "Gradual unfreezing": lambda name: name in UNFROZEN,
    "Fewer training rows": lambda name: name.startswith("rows"),
    "Another task": lambda name: name.startswith(OTHER_TASK),
}
"""Titles of figures, and which arms they show."""


def study_page(results: Mapping[str, Any]) -> Page:
    """The page of the study's results, as results.json holds them."""
    arms, rows = results["arms"], results["rows"]
    sections = [
        Section("Results", [_words(results), table("Mean over seeds", COLUMNS, result_table(arms), figures=False)]),
        Section("Learning curves", [_curves(title, rows, chosen) for title, chosen in _shown(arms)]),
    ]
    maps = _heat_maps(rows)
    if maps:
        sections.append(Section("What the bridges read", maps))
    lead = (
        "Connections from all encoder layers to every decoder layer, compared with none: same data in the same order, "
        "same batches, same updates, same search for a learning rate."
    )
    return Page(f"Bridge study, scale {results['scale']}", lead, sections)


def result_table(arms: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row for each arm, as COLUMNS names it."""
    return [[name, *_figures(arm)] for name, arm in arms.items()]


def _figures(arm: Mapping[str, Any]) -> list[str]:
    metrics, difference = arm["metrics"], arm.get("difference", {}).get("bleu")
    parts = [f"{metrics[name]:.2f}" for name in ("bleu", "bleu, short", "bleu, long", "chrf")]
    compared = ["–"] * 3 if difference is None else [arm["reference"], *difference_text(difference)]
    return [*parts, f"{metrics['loss']:.3f}", *compared, f"{arm['rate']:g}"]


def _words(results: Mapping[str, Any]) -> Html:
    seconds = seconds_text(results["training_seconds"])
    sentence = f"All training together took {seconds} of single threads."
    smallest = [f"{value:.2f} BLEU in {tests}" for tests, value in results["smallest_differences"].items()]
    if smallest:
        sentence += f" A difference of {', and one of '.join(smallest)} would have been found four times out of five."
    return element("p", sentence)


def _shown(arms: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = [(title, [name for name in arms if chosen(name)]) for title, chosen in GROUPS.items()]
    return [(title, names) for title, names in found if names]


def _curves(title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Html:
    curves = {name: mean_curve([row for row in rows if row["arm"] == name]) for name in names}
    return element("div", element("h3", title), blocks.learning_curves(curves, title))


def mean_curve(rows: Sequence[Mapping[str, Any]]) -> Curve:
    """Mean losses over seeds."""
    return Curve(*(mean_points([row[kind] for row in rows]) for kind in ("training", "validation")))


def _heat_maps(rows: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Of every arm with a bridge: mean shares over seeds, before and after training."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["bridge"] is not None:
            found.setdefault(row["arm"], []).append(row["bridge"])
    return [
        element(
            "div", element("h3", name), blocks.bridge(_mean_maps(bridges), bridges[0]["states"], f"Bridge of {name}")
        )
        for name, bridges in found.items()
    ]


def _mean_maps(bridges: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    return {
        f"{when} training": [
            [mean(shares) for shares in zip(*layers, strict=True)]
            for layers in zip(*(bridge[when] for bridge in bridges), strict=True)
        ]
        for when in ("before", "after")
    }
