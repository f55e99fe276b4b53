"""Tables of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graftlm.reports.page import Html, element
from graftlm.reports.records import Interval

LABELS = {
    "loss": "loss, nats per target token (lower is better)",
    "source_gain": "source gain, nats per target token",
}
"""What metrics are called in full, where the name does not say it; the others run from 0 to 100."""


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, figures: bool = True) -> Html:
    """A table whose first column names the rows; the other columns are figures, to the right, or text."""
    head = element("tr", *(element("th", column, scope="col") for column in columns))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    content = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    # A focus lets the keyboard scroll a table that is wider than the screen.
    style = "scroll figures" if figures else "scroll"
    return element("div", content, class_=style, tabindex="0", role="region", aria_label=caption)


def metric_table(caption: str, arms: Mapping[str, Mapping[str, Interval]]) -> Html:
    """Arms down, metrics across: value (low to high)."""
    names = metric_names(arms)
    rows = [
        [arm, *(_interval(metrics[name]) if name in metrics else "–" for name in names)]
        for arm, metrics in arms.items()
    ]
    return table(caption, ["", *(LABELS.get(name, name) for name in names)], rows)


def metric_names(arms: Mapping[str, Mapping[str, Interval]]) -> list[str]:
    """Metrics of any arm, in the order of their first mention."""
    return list(dict.fromkeys(name for metrics in arms.values() for name in metrics))


def memory_table(caption: str, cases: Mapping[str, int]) -> Html:
    """Bytes of each case, and how many times the smallest one's they are."""
    least = max(1, min(cases.values()))
    rows = [[name, bytes_text(size), f"{size:,}", f"{size / least:.2f}"] for name, size in cases.items()]
    return table(caption, ["case", "size", "bytes", "times the smallest"], rows)


def bytes_text(size: float) -> str:
    """Bytes in decimal units.

    >>> bytes_text(14_760_696), bytes_text(999)
    ('14.8 MB', '999 B')
    """
    units = ("B", "kB", "MB", "GB", "TB")
    power = 0
    while power < len(units) - 1 and round(size / 1000**power, 1) >= 1000:
        power += 1
    return f"{size / 1000**power:.{1 if power else 0}f} {units[power]}"


def seconds_text(seconds: float) -> str:
    """A duration.

    >>> seconds_text(59.96), seconds_text(379.8), seconds_text(7300)
    ('1 min 0 s', '6 min 20 s', '2 h 1 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _interval(metric: Interval) -> str:
    # On a narrow screen the line breaks before the interval, not within it.
    return f"{metric.value:.2f} ({metric.low:.2f}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{metric.high:.2f})"
