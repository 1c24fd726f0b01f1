"""Pieces of HTML that the report's sections share. Arguments named markup or cells are trusted, others are escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

# Characters that reorder the text around them: an answer must not be able to make the page read differently.
_REORDERING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def safe(text: str) -> str:
    """Escaped for text and quoted attributes; control, reordering and broken characters become U+FFFD."""
    return escape("".join("\ufffd" if _unprintable(character) else character for character in text))


def _unprintable(character: str) -> bool:
    return character not in "\n\t" and (
        unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in _REORDERING
    )


def section(title: str, markup: str) -> str:
    return f"<section>\n<h2>{safe(title)}</h2>\n{markup}\n</section>\n"


def legend(markup: str) -> str:
    """The small print above a table or a plot: how to read it."""
    return f'<p class="legend">{markup}</p>'


def chip(kind: str, words: str) -> str:
    """A word on a coloured ground; the colour repeats what the word says. ``kind``: better, worse or plain."""
    return f'<span class="chip {kind}">{safe(words)}</span>'


def table(caption: str, columns: Sequence[str], bodies: Iterable[str], kind: str = "") -> str:
    """A table that the style sheet turns into cards on a phone; the roles keep it a table for screen readers."""
    heads = "".join(f'<th scope="col" role="columnheader">{safe(column)}</th>' for column in columns)
    return (
        f'<table class="{kind}" role="table"><caption>{safe(caption)}</caption>'
        f'<thead role="rowgroup"><tr role="row">{heads}</tr></thead>{"".join(bodies)}</table>'
    )


def body(rows: Iterable[str]) -> str:
    return f'<tbody role="rowgroup">{"".join(rows)}</tbody>'


def row(columns: Sequence[str], cells: Sequence[str]) -> str:
    """One row of markup cells, the first of which heads it; on a phone each of the rest is named by its column."""
    head = f'<th scope="row" role="rowheader">{cells[0]}</th>'
    named = zip(columns[1:], cells[1:], strict=True)
    rest = (f'<td role="cell" data-label="{safe(column)}"><div>{cell}</div></td>' for column, cell in named)
    return f'<tr role="row">{head}{"".join(rest)}</tr>'


def group_row(columns: Sequence[str], markup: str) -> str:
    """A heading across the whole table."""
    across = f'<th scope="rowgroup" role="rowheader" colspan="{len(columns)}">{markup}</th>'
    return f'<tr role="row" class="group">{across}</tr>'
