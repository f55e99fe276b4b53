"""A page of sections as one HTML file that needs no network; whatever is not markup is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files


class Html(str):
    """Markup, in contrast to text, which is escaped wherever it is put in."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str) -> Html:
    """One element; `class_` is written for class, `aria_label` for aria-label.

    >>> element("p", "1 < 2", class_="lead")
    '<p class="lead">1 &lt; 2</p>'
    """
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    named = "".join(f' {names[name]}="{html.escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{named}>{join(children)}</{tag}>")


def join(parts: Sequence[str]) -> Html:
    """Parts one after the other, with those escaped that are not markup."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def details(summary: str, content: Html) -> Html:
    """Content that is folded away until it is asked for."""
    return element("details", element("summary", summary), content)


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    parts: Sequence[Html]

    def html(self) -> Html:
        """The section as an element."""
        return element("section", element("h2", self.title), *self.parts)


@dataclass(frozen=True)
class Page:
    """A title, one sentence on what the page is, and sections."""

    title: str
    lead: str
    sections: Sequence[Section]

    def html(self) -> Html:
        """The whole file."""
        css = (files("graftlm.reports") / "page.css").read_text(encoding="utf-8")
        head = join(
            [
                Html('<meta charset="utf-8">'),
                Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
                # A record that found a way around the escaping could still load and run nothing.
                Html("""<meta http-equiv="Content-Security-Policy" content="default-src 'none'; """),
                Html("""style-src 'unsafe-inline'">"""),
                element("title", self.title),
                element("style", Html(css)),
            ]
        )
        header = element("header", element("h1", self.title), element("p", self.lead, class_="lead"))
        body = element("body", header, element("main", *(section.html() for section in self.sections)))
        return Html(f"<!doctype html>\n{element('html', element('head', head), body, lang='en')}\n")
