"""Templates: text with fields of a record in braces."""

import json
from collections.abc import Mapping
from string import Formatter
from typing import Any


def parse(template: str) -> list[tuple[str, str | None]]:
    """Pieces of literal text, each with the field that follows it; doubled braces are literal ones.

    Raises: ValueError with the reason, for anything else than plain names in braces.

    >>> parse("Q: {source} A:")
    [('Q: ', 'source'), (' A:', None)]
    """
    pieces = []
    for literal, field, spec, conversion in Formatter().parse(template):
        if field is not None and (not field or spec or conversion):
            raise ValueError("each pair of braces must hold the plain name of a field")
        pieces.append((literal, field))
    return pieces


def render(template: str, values: Mapping[str, Any]) -> str:
    """The template with its fields filled in; values that are not text are written as JSON.

    Raises: KeyError with the name of a field that is missing or null.

    >>> render("Q: {source} ({year})", {"source": "who?", "year": 1840})
    'Q: who? (1840)'
    """
    return "".join(literal + ("" if field is None else _text(field, values)) for literal, field in parse(template))


def _text(field: str, values: Mapping[str, Any]) -> str:
    value = values.get(field)
    if value is None:
        raise KeyError(field)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
