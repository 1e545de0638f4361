"""Plain text -> documents.

Paragraphs, separated by blank lines, are gathered in order into documents of up to 4,000
characters, about a thousand tokens: long enough to fill a window, short enough that a small file
has documents to hold out. A longer paragraph is cut at white space. Line ends are unified, and
white space at the end of a paragraph is dropped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

from dihal_bench.data.decoding import pieces

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_DOCUMENT = 4000  # characters
_BLANK_LINES = re.compile(r"\n\s*\n")


def plain_text(file: BinaryIO) -> Iterator[str]:
    """Yield runs of paragraphs, joined by empty lines.

    Raises:
        Flaw: the file is not UTF-8.
    """
    gathered: list[str] = []
    size = 0
    for paragraph in _paragraphs(file):
        if gathered and size + len(paragraph) > _DOCUMENT:
            yield "\n\n".join(gathered)
            gathered, size = [], 0
        gathered.append(paragraph)
        size += len(paragraph) + 2
    if gathered:
        yield "\n\n".join(gathered)


def _paragraphs(file: BinaryIO) -> Iterator[str]:
    return (text for piece in _pieces(file) if (text := piece.rstrip()))


def _pieces(file: BinaryIO) -> Iterator[str]:
    rest = "\n"  # so that white space in front of everything ends in a blank line like any other
    for chunk in pieces(file, translate=True):
        text = rest + chunk
        body = text.rstrip()  # the white space behind it may go on in the next chunk
        *whole, last = _BLANK_LINES.split(body)
        for paragraph in whole:
            yield (yield from _cut(paragraph))
        rest = (yield from _cut(last)) + text[len(body) :]
    yield rest


def _cut(text: str) -> Generator[str, None, str]:
    """Yield what exceeds one document, cut at white space where there is some; return the rest."""
    text = text.lstrip("\n")
    while len(text) > _DOCUMENT:
        stop = max(text.rfind(space, 1, _DOCUMENT + 1) for space in " \n")
        if stop < 0:
            stop = _DOCUMENT
        yield text[:stop]
        text = text[stop:].lstrip()
    return text
