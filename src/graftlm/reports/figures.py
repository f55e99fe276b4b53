"""Figures of a report, as matplotlib objects; none of them touches pyplot or a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlm.reports.records import Interval
from graftlm.reports.style import HEAT, INK, LINE, PAPER, WIDEST, WIDTH, series, style
from graftlm.reports.tables import bytes_text, metric_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 24
"""Letters of a name that a figure has room for."""
PRINTED_CELLS = 12 * 13
"""Cells of a heat map up to which each has room for its value."""
SHOWN_TICKS = 14
"""Numbers that a heat map has room for on each side."""
STEPS = 50
"""Colours of a heat map's scale."""
DARK = 0.6
"""Share above which the colour of paper is easier to read in a cell than that of ink, on light and on dark pages."""


@dataclass(frozen=True)
class Curve:
    """Losses of a run as (update, nats per target token)."""

    training: Sequence[tuple[int, float]]
    validation: Sequence[tuple[int, float]] = ()


def learning_curves(curves: Mapping[str, Curve]) -> Figure:
    """Training losses as lines, validation losses as dashed lines with marks; one colour and mark a run."""
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 3.3))
        axes = figure.add_subplot(xlabel="updates", ylabel="nats per target token")
        for number, curve in enumerate(curves.values()):
            colour, marker = series(number)
            axes.plot(*_columns(curve.training), color=colour)
            axes.plot(*_columns(curve.validation), color=colour, linestyle="--", marker=marker, markersize=6)
        axes.set_xlim(left=0)
    return figure


def curves(lines: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Something in nats per target token over updates; one colour and mark a run."""
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 3.3))
        axes = figure.add_subplot(xlabel="updates", ylabel="nats per target token")
        for number, points in enumerate(lines.values()):
            colour, marker = series(number)
            axes.plot(*_columns(points), color=colour, marker=marker, markersize=6)
        axes.set_xlim(left=0)
    return figure


def metric_panels(arms: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """A panel for each metric, and in it a dot with its interval for each arm, the first one on top."""
    with style():
        from matplotlib.figure import Figure

        names = metric_names(arms)
        figure = Figure(figsize=(WIDTH, len(names) * (0.75 + 0.3 * len(arms))))
        for place, name in enumerate(names, start=1):
            axes = figure.add_subplot(len(names), 1, place, title=name)
            for number, metrics in enumerate(arms.values()):
                if name in metrics:
                    metric = metrics[name]
                    colour, marker = series(number)
                    axes.plot([metric.low, metric.high], [number, number], color=colour, linewidth=2.4, alpha=0.6)
                    axes.plot([metric.value], [number], color=colour, marker=marker, markersize=7, linestyle="none")
            axes.set_yticks(range(len(arms)), [shortened(arm) for arm in arms])
            axes.set_ylim(len(arms) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            axes.margins(x=0.08)
    return figure


def memory_bars(cases: Mapping[str, int]) -> Figure:
    """A horizontal bar for each case, its name above it and its bytes at its end."""
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 0.1 + 0.6 * len(cases)))
        axes = figure.add_subplot()
        axes.barh(range(len(cases)), [float(size) for size in cases.values()], height=0.4, color=series(0)[0])
        for place, (name, size) in enumerate(cases.items()):
            axes.annotate(name, (0, place), (0, 11), textcoords="offset points", color=INK, va="bottom")
            axes.annotate(
                bytes_text(size), (float(size), place), (5, 0), textcoords="offset points", color=INK, va="center"
            )
        # Room for the longest bar's label.
        axes.set_xlim(0, 1.2 * max(cases.values()) or 1)
        axes.set_ylim(len(cases) - 0.7, -0.7)
        axes.set_axis_off()
    return figure


def heat_maps(maps: Mapping[str, Sequence[Sequence[float]]], states: Sequence[int]) -> Figure:
    """Shares from 0 to 1 as heat maps side by side, all on one scale: decoder layers down, encoder states across.

    Each of `maps` has one row for each decoder layer, or a single one for all, and a column for each of `states`.
    """
    with style():
        from matplotlib.colors import LinearSegmentedColormap, to_rgba
        from matplotlib.figure import Figure

        layers = max(len(rows) for rows in maps.values())
        printed = layers * len(states) <= PRINTED_CELLS
        width = min(max(WIDTH, 1.2 + 0.25 * len(maps) * len(states)), WIDEST)
        figure = Figure(figsize=(width, 0.85 + max(0.7, (0.25 if printed else 0.16) * layers)))
        figure.set_layout_engine("constrained", h_pad=0.03, wspace=0.04)
        panels = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
        # One colour that grows denser: it goes from the page's own to the full one on light and on dark paper.
        colours = LinearSegmentedColormap.from_list("share", [to_rgba(HEAT, 0), to_rgba(HEAT, 1)], N=STEPS + 1)
        for axes, (name, rows) in zip(panels, maps.items(), strict=True):
            cells = axes.pcolormesh(
                rows, cmap=colours, vmin=0, vmax=1, edgecolors=LINE, linewidth=0.5 if printed else 0.2
            )
            axes.set_title(name)
            _number(axes, list(map(str, states)), layer_names(rows))
            if printed:
                _print(axes, rows)
        panels[0].set_ylabel("decoder layer")
        panels[0].invert_yaxis()
        figure.supxlabel("encoder state" + (" (0 is the embedding)" if 0 in states else ""), fontsize=10)
        bar = figure.colorbar(cells, ax=list(panels), format="{x:.0%}", ticks=[0, 0.5, 1], aspect=20, pad=0.02)
        assert bar.solids is not None
        # Side by side, the steps of a scale that is see-through have seams; these lie on one another.
        bar.solids.remove()
        for step in range(STEPS):
            bar.ax.axhspan(step / STEPS, 1, color=HEAT, alpha=1 / (STEPS - step), linewidth=0)
        bar.outline.set_edgecolor(LINE)
    return figure


def shortened(name: str) -> str:
    """A name that a figure has room for."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def layer_names(rows: Sequence[Sequence[float]]) -> list[str]:
    """What the rows of a heat map are called: numbers of decoder layers, or a word for all of them."""
    return [str(layer) for layer in range(1, len(rows) + 1)] if len(rows) > 1 else ["all"]


def _number(axes: Axes, states: Sequence[str], layers: Sequence[str]) -> None:
    """Name columns, and rows from the top; of many every second or third."""
    for names, axis in ((states, axes.xaxis), (layers, axes.yaxis)):
        every = -(-len(names) // SHOWN_TICKS)
        axis.set_ticks([place + 0.5 for place in range(len(names))][::every], names[::every])
    axes.tick_params(length=0, labelsize=9)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _print(axes: Axes, rows: Sequence[Sequence[float]]) -> None:
    """Write every share into its cell, in percent."""
    for y, row in enumerate(rows):
        for x, share in enumerate(row):
            colour = PAPER if share > DARK else INK
            axes.text(x + 0.5, y + 0.5, f"{100 * share:.0f}", color=colour, ha="center", va="center", fontsize=7.5)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [float(step) for step, _ in points], [loss for _, loss in points]
