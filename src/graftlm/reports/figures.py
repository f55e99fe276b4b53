"""Figures of a report, as matplotlib objects; none of them touches pyplot or a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftlm.reports.records import Interval
from graftlm.reports.style import INK, WIDTH, series, style
from graftlm.reports.tables import bytes_text, metric_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 24
"""Letters of a name that a figure has room for."""


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


def shortened(name: str) -> str:
    """A name that a figure has room for."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [float(step) for step, _ in points], [loss for _, loss in points]
