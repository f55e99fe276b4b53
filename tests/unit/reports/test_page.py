"""Pages: whatever is not markup is escaped, and nothing comes from outside."""

import doctest
from html.parser import HTMLParser

import pytest

from graftlm.reports import page, tables
from graftlm.reports.page import Html, Page, Section, details, element, join

ATTACK = """<script>alert('1')</script> & "x" </title>"""


class Collector(HTMLParser):
    """Tags and texts of a page, as a browser sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Collector:
    collector = Collector()
    collector.feed(text)
    return collector


@pytest.mark.parametrize("module", [page, tables])
def test_examples_in_docstrings(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_text_is_escaped_wherever_it_is_put() -> None:
    for made in (
        element("p", ATTACK),
        element("p", "ok", title=ATTACK),
        join(["a", ATTACK]),
        details(ATTACK, Html()),
        Section(ATTACK, []).html(),
        tables.table(ATTACK, [ATTACK], [[ATTACK, ATTACK]]),
        Page(ATTACK, ATTACK, []).html(),
    ):
        assert "script" not in parsed(made).tags
    assert parsed(element("p", ATTACK)).text == ATTACK


def test_markup_joined_with_text_counts_as_text() -> None:
    assert element("p", Html("<b>") + "x") == "<p>&lt;b&gt;x</p>"


def test_a_page_loads_nothing_and_says_so() -> None:
    text = Page("Title", "Lead.", [Section("One", [element("p", "text")])]).html()
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert {"h1", "h2", "style", "main"} <= set(parsed(text).tags)
    assert not {"script", "link", "img", "iframe"} & set(parsed(text).tags)
    assert "url(http" not in text
    assert "prefers-color-scheme: dark" in text
