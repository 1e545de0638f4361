"""Progress that a person can watch: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from dihal_bench.core import distributed
from dihal_bench.core.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN_SECONDS = 15.0  # between plain lines
_shared: list[str] = []  # what this process's lines begin with, if others write to its terminal too


class Progress(Protocol):
    """What the code that works sees of a bar."""

    def update(self, n: float = 1) -> object:
        """Count ``n`` more units as done.

        Raises:
            OutOfTime: the time that this process has is over.
        """

    def note(self, text: str) -> None:
        """Show a short remark (a loss) beside the bar."""


class _Bar:
    def __init__(self, label: str, total: float | None, unit: str):
        from tqdm import tqdm

        self._bar = tqdm(
            total=total,
            desc=label,
            unit=f" {unit}",
            unit_scale=True,
            leave=False,
            dynamic_ncols=True,
            delay=0.5,
        )

    def update(self, n: float = 1) -> object:
        Deadline.check()
        return self._bar.update(n)

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    def __init__(self, label: str, total: float | None, unit: str):
        self._label, self._total, self._unit = label, total, unit
        self._done = 0.0
        self._text = ""
        self._last = time.monotonic()

    def update(self, n: float = 1) -> object:
        Deadline.check()
        self._done += n
        if time.monotonic() - self._last > _PLAIN_SECONDS:
            self._last = time.monotonic()
            of = f" of {self._total:,.0f}" if self._total else ""
            say(f"{self._label}: {self._done:,.0f}{of} {self._unit} {self._text}".rstrip())
        return None

    def note(self, text: str) -> None:
        self._text = text

    def close(self) -> None:
        """A plain line needs no closing."""


def share_terminal(prefix: str) -> None:
    """Show plain lines that begin with ``prefix``: other processes write to the terminal too."""
    _shared[:] = [prefix]


def say(text: str) -> None:
    """Tell a person something, on standard error; of several processes the main one does."""
    if distributed.is_main():
        print(f"{''.join(_shared)}{text}", file=sys.stderr, flush=True)


@contextmanager
def progress(
    label: str, total: float | None, *, unit: str, alone: bool = True
) -> Iterator[Progress]:
    """Show progress on standard error: a bar on a terminal, else a plain line now and then.

    Args:
        label: what the work is.
        total: units of it; None: not known.
        unit: its name.
        alone: no other process writes to the terminal meanwhile; a bar would be torn.
    """
    own = alone and sys.stderr.isatty() and not _shared and distributed.is_main()
    bar = (_Bar if own else _Lines)(label, total, unit)
    try:
        yield bar
    finally:
        bar.close()
