"""What reports are put together of: each a figure with its data as a table, or samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftlm.reports import figures
from graftlm.reports.figures import Curve, layer_names
from graftlm.reports.page import Html, details, element, join
from graftlm.reports.records import Interval
from graftlm.reports.style import MARKERS, RESOLVED, series
from graftlm.reports.svg import inline
from graftlm.reports.tables import bytes_text, memory_table, metric_table, table

SHOWN_STEPS = 200
"""Rows of a table of losses; of more updates than that, evenly many are shown."""
SHOWN_REFERENCES = 3
SOURCE_GAIN = "Source gain in validation: loss with another example's source less that with its own."
"""What is said under a figure of it."""


@dataclass(frozen=True)
class SampleRow:
    """One source with what each arm made of it."""

    source: str
    outputs: Mapping[str, str]
    references: Sequence[str]


def learning_curves(curves: Mapping[str, Curve], title: str = "Learning curves") -> Html:
    """Losses over updates, all runs in one figure, and the same as a table."""
    ends = [f"{name} ends at {curve.training[-1][1]:.2f}" for name, curve in curves.items()]
    description = f"Training loss (lines) and validation loss (dashed, with marks) over updates: {'; '.join(ends)}."
    caption = "Loss in nats per target token: training as a line, validation dashed with marks."
    figure = inline(figures.learning_curves(curves), title, description)
    return join([_figure(figure, caption, list(curves)), details("The figure as a table", _losses(curves))])


def curves(lines: Mapping[str, Sequence[tuple[int, float]]], title: str, caption: str) -> Html:
    """Something in nats per target token over updates, all runs in one figure, and the same as a table."""
    ends = [f"{name} ends at {points[-1][1]:.2f}" for name, points in lines.items()]
    figure = inline(figures.curves(lines), title, f"{title} over updates: {'; '.join(ends)}.")
    cells = [dict(points) for points in lines.values()]
    listed = table(f"{title} in nats per target token", ["update", *lines], _rows(cells, sorted(set().union(*cells))))
    return join([_figure(figure, caption, list(lines)), details("The figure as a table", listed)])


def metrics(arms: Mapping[str, Mapping[str, Interval]], title: str) -> Html:
    """Metrics of several arms with their 95 % intervals, as a table and as a figure."""
    rows = metric_table("Value (95 % interval)", arms)
    names = ", ".join(arms)
    figure = inline(figures.metric_panels(arms), title, f"Metrics of {names} with 95 % intervals, as in the table.")
    return join([rows, _figure(figure, "Dot: value; bar: 95 % interval. Every panel has a scale of its own.")])


def memory(cases: Mapping[str, int], title: str = "Memory") -> Html:
    """Bytes of several ways to have the same tasks, as bars and as a table."""
    sizes = "; ".join(f"{name}: {bytes_text(size)}" for name, size in cases.items())
    figure = inline(figures.memory_bars(cases), title, f"Bars of bytes. {sizes}.")
    return join([_figure(figure), memory_table(title, cases)])


def bridge(maps: Mapping[str, Sequence[Sequence[float]]], states: Sequence[int], title: str) -> Html:
    """What decoder layers read of encoder states: heat maps of shares from 0 to 1, and the same as tables."""
    most = ". ".join(f"{name}: {_most(rows, states)}" for name, rows in maps.items())
    description = f"Heat maps of the shares of encoder states in decoder layers. The largest shares {most}."
    figure = inline(figures.heat_maps(maps, states), title, description)
    caption = "Share of each encoder state in what a decoder layer reads, in percent, by the norms of the weights."
    columns = ["decoder layer", *(f"state {state}" for state in states)]
    tables = [table(f"Shares in percent, {name}", columns, _percents(rows)) for name, rows in maps.items()]
    return join([_figure(figure, caption), details("The figure as tables", join(tables))])


def samples(rows: Sequence[SampleRow]) -> Html:
    """Sources with what was written, and what was asked for."""
    return join([_sample(row) for row in rows])


def _sample(row: SampleRow) -> Html:
    shown = row.references[:SHOWN_REFERENCES]
    more = len(row.references) - len(shown)
    name = "reference" if len(row.references) == 1 else f"{len(row.references)} references"
    pairs = [("source", row.source), *row.outputs.items()]
    pairs += [(name, "\n".join(shown) + (f"\nand {more} more" if more else ""))] if shown else []
    terms = [join([element("dt", term), element("dd", text or "(nothing)")]) for term, text in pairs]
    return element("div", element("dl", *terms), class_="sample")


def _figure(figure: Html, caption: str = "", legend: Sequence[str] = ()) -> Html:
    entries = [element("li", _key(number), f" {name}") for number, name in enumerate(legend)]
    key = element("ul", *entries, class_="legend") if entries else Html()
    return element("figure", figure, key, element("figcaption", caption) if caption else Html())


def _key(number: int) -> Html:
    colour, marker = series(number)
    return element("span", MARKERS[marker], style=f"color: {RESOLVED[colour]}", aria_hidden="true")


def _most(rows: Sequence[Sequence[float]], states: Sequence[int]) -> str:
    largest = [max(zip(row, states, strict=True)) for row in rows]
    named = zip(layer_names(rows), largest, strict=True)
    return "; ".join(f"layer {layer}, state {state}, {share:.0%}" for layer, (share, state) in named)


def _percents(rows: Sequence[Sequence[float]]) -> list[list[str]]:
    return [[layer, *(f"{share:.1%}" for share in row)] for layer, row in zip(layer_names(rows), rows, strict=True)]


def _losses(curves: Mapping[str, Curve]) -> Html:
    columns = ["update"]
    cells: list[dict[int, float]] = []
    for name, curve in curves.items():
        columns += [f"{name}, training", f"{name}, validation"]
        cells += [dict(curve.training), dict(curve.validation)]
    steps = sorted(set().union(*cells))
    every = max(1, -(-len(steps) // SHOWN_STEPS))
    rows = _rows(cells, steps[every - 1 :: every])
    note = f", every {every}th entry" if every > 1 else ""
    return table(f"Loss in nats per target token{note}", columns, rows)


def _rows(columns: Sequence[Mapping[int, float]], steps: Sequence[int]) -> list[list[str]]:
    return [[f"{step:,}", *(f"{found[step]:.3f}" if step in found else "–" for found in columns)] for step in steps]
