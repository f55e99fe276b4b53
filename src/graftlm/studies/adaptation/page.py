"""The report of the adaptation study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from graftlm.reports import blocks
from graftlm.reports.page import Html, Page, Section, element
from graftlm.reports.tables import seconds_text, table
from graftlm.studies.results import difference_text, mean_points

CAPTIONS = {
    "validation": "Validation loss, nats per target token: the same PrefixLM examples for all arms.",
    "source_gain": blocks.SOURCE_GAIN,
}
"""Curves of a run, and what is said under their figures."""


def study_page(results: Mapping[str, Any]) -> Page:
    """The page of the study's results so far, as results.json holds them."""
    arms = results["arms"]
    sections = [Section("Results", [_words(results), table("Mean over seeds", _columns(results), result_table(arms))])]
    for question, names in results["questions"].items():
        present = [name for name in names if name in arms]
        if present:
            sections.append(Section(question, [_curves(results["rows"], present, kind) for kind in CAPTIONS]))
    lead = (
        "Ways to make an encoder–decoder of a language model: same texts in the same order, same batches, same "
        "updates, same search for a learning rate; each arm differs in one thing from the one that it is compared with."
    )
    return Page(f"Adaptation study, scale {results['scale']}", lead, sections)


def result_table(arms: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row for each arm."""
    return [[name, *_figures(arm)] for name, arm in arms.items()]


def _columns(results: Mapping[str, Any]) -> list[str]:
    reached = [f"updates to {loss:.2f}" for loss in results["thresholds"].values()]
    compared = ["against", "difference in loss (95 %)", "by seed", "difference in source gain (95 %)", "by seed"]
    return ["arm", "loss", "source gain", "loss of its own objective", *reached, *compared, "seeds", "rate"]


def _figures(arm: Mapping[str, Any]) -> list[str]:
    parts = [f"{arm['metrics'][name]:.3f}" for name in ("loss", "source_gain")]
    parts += [f"{arm['own_loss']:.3f}", *map(_reached, arm["updates_to"].values())]
    if "difference" in arm:
        texts = [difference_text(arm["difference"][name], 3) for name in ("loss", "source_gain")]
        parts += [arm["reference"], *texts[0], *texts[1]]
    else:
        parts += ["–"] * 5
    return [*parts, str(arm["seeds"]), f"{arm['rate']:g}"]


def _reached(updates: Sequence[int | None]) -> str:
    """Mean of the updates, with how many seeds came so far where not all did."""
    found = [one for one in updates if one is not None]
    if not found:
        return "–"
    return f"{mean(found):.0f}" + ("" if len(found) == len(updates) else f" ({len(found)} of {len(updates)} seeds)")


def _words(results: Mapping[str, Any]) -> Html:
    done, planned = results["jobs"]
    sentences = [
        "Loss and source gain are of test texts, by PrefixLM, in nats per target token; the loss of an arm's own "
        "objective is that of its last training texts, before each was trained on.",
        results["texts"],
        f"All training together took {seconds_text(results['training_seconds'])} of single threads.",
    ]
    if done < planned:
        sentences.insert(0, f"Not finished: {done} of at least {planned} jobs are done.")
    smallest = results["smallest_difference"]
    if smallest["loss"] is not None:
        sentences.append(
            f"Differences of {smallest['loss']:.3f} in loss and {smallest['source_gain']:.3f} in source gain would "
            "have been found four times out of five."
        )
    return element("p", " ".join(sentences))


def _curves(rows: Sequence[Mapping[str, Any]], names: Sequence[str], kind: str) -> Html:
    lines = {name: mean_points([row[kind] for row in rows if row["arm"] == name]) for name in names}
    return blocks.curves(lines, "Validation loss" if kind == "validation" else "Source gain", CAPTIONS[kind])
