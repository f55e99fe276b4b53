"""Figures: right data, the same bytes every time, and names that matplotlib would take for something else."""

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping

import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure

from graftlm.errors import GraftError
from graftlm.reports import figures
from graftlm.reports.figures import Curve
from graftlm.reports.records import Interval
from graftlm.reports.style import series
from graftlm.reports.svg import inline

CURVES = {"one": Curve([(10, 3.5), (20, 2.25)], [(20, 2.5)]), "two": Curve([(10, 4.0)])}
ARMS = {
    "untuned": {"loss": Interval(value=5, low=4, high=6)},
    "tuned": {"loss": Interval(value=1.5, low=1.25, high=1.75), "bleu": Interval(value=40, low=39, high=41)},
}
STRANGE = {"_hidden $x_1$ <b>& 日本 " + "long " * 9: 5, r"\frac $": 0}


def lines(figure: Figure, panel: int = 0) -> list[list[tuple[float, float]]]:
    return [[(float(x), float(y)) for x, y in line.get_xydata()] for line in figure.axes[panel].lines]


def test_learning_curves_show_every_loss() -> None:
    assert lines(figures.learning_curves(CURVES)) == [[(10, 3.5), (20, 2.25)], [(20, 2.5)], [(10, 4.0)], []]


def test_a_panel_for_each_metric_with_its_intervals() -> None:
    figure = figures.metric_panels(ARMS)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "bleu"]
    assert lines(figure, 0) == [[(4, 0), (6, 0)], [(5, 0)], [(1.25, 1), (1.75, 1)], [(1.5, 1)]]
    assert lines(figure, 1) == [[(39, 1), (41, 1)], [(40, 1)]]
    low, high = figure.axes[0].get_xlim()
    assert low < 1.25
    assert high > 6


def test_memory_bars_are_as_long_as_their_bytes() -> None:
    figure = figures.memory_bars({"one decoder, two encoders": 30, "two models": 40})
    assert [bar.get_width() for bar in figure.axes[0].patches] == [30, 40]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.learning_curves(CURVES),
        lambda: figures.metric_panels(ARMS),
        lambda: figures.memory_bars({"a": 10**9, "b": 3}),
    ],
)
def test_svg_is_well_formed_described_and_the_same_every_time(draw) -> None:
    svg = inline(draw(), "A <title>", "Describes & tells.")
    assert svg == inline(draw(), "A <title>", "Describes & tells.")
    root = ET.fromstring(svg)
    assert (root.get("role"), root[0].text, root[1].text) == ("img", "A <title>", "Describes & tells.")
    assert not {"metadata", "style", "script", "image"} & {child.tag for child in root.iter()}
    assert "http" not in svg


def test_many_runs_differ_in_colour_or_mark() -> None:
    assert len({series(number) for number in range(36)}) == 36


def test_colours_are_left_to_the_page() -> None:
    svg = inline(figures.learning_curves(CURVES), "t", "d")
    assert "var(--series-1" in svg
    assert "var(--series-2" in svg
    assert "var(--ink" in svg
    outside = re.sub(r"var\([^)]*\)", "", svg)
    assert not re.findall(r"(?:fill|stroke): (?!none)[#a-z]+", outside)


def test_figures_of_one_page_share_no_ids() -> None:
    ids = [set(re.findall(r' id="([^"]+)"', inline(figures.learning_curves(CURVES), title, ""))) for title in "ab"]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_names_are_shown_as_they_are(recwarn: pytest.WarningsRecorder) -> None:
    strange: Mapping[str, int] = STRANGE
    arms = {name: {"x": Interval(value=1, low=1, high=1)} for name in strange}
    for figure in (figures.memory_bars(strange), figures.metric_panels(arms)):
        texts = [text.text or "" for text in ET.fromstring(inline(figure, "t", "d")).iter("text")]
        assert any(text.startswith("_hidden $x_1$ <b>& 日本") for text in texts)
        assert any(r"\frac $" in text for text in texts)
    assert not recwarn.list


def test_a_users_own_settings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = inline(figures.learning_curves(CURVES), "t", "d")
    monkeypatch.setitem(rcParams, "font.size", 30.0)
    assert inline(figures.learning_curves(CURVES), "t", "d") == before
    assert rcParams["font.size"] == 30.0


def test_without_matplotlib_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(GraftError, match=r"pip install 'graftlm\[report\]'"):
        figures.memory_bars({"a": 1})
