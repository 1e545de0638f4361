"""Strings of a record as Markdown: whatever they hold, they stay text on one line."""

from __future__ import annotations

import re
import unicodedata

_SPECIAL = re.compile(r"[\\`*_|~#$]|\](?=[(\[:])")  # the last: what makes a link
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def one_line(value: object) -> str:
    """Return text without line breaks, control characters and lone surrogates."""
    kept = (" " if unicodedata.category(c)[0] == "C" else c for c in str(value))
    return " ".join("".join(kept).split())


def escaped(value: object) -> str:
    """Return text that Markdown, in a table as well, shows as it stands and HTML never reads."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(value)).translate(_ENTITIES)


def counted(number: int, one: str, more: str = "") -> str:
    """Return a number with its noun: 1 run, 2 runs; ``more`` is the plural that takes no s."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def block(text: str, language: str) -> str:
    """Return code between fences that are longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
