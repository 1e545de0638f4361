"""A time at which work is to stop, wherever it stands, so that the same command can continue it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class OutOfTime(Exception):
    """The time is over; what is finished is on disk."""


class Deadline:
    """The time that this process has.

    Attributes:
        current: when it is over, in seconds of ``time.monotonic``; None: never.
    """

    current: ClassVar[float | None] = None

    @classmethod
    def passed(cls) -> bool:
        """Whether the time is over."""
        return cls.current is not None and time.monotonic() >= cls.current

    @classmethod
    def check(cls) -> None:
        """End what is done, between two steps of it.

        Raises:
            OutOfTime: the time is over.
        """
        if cls.passed():
            raise OutOfTime


@contextmanager
def until(moment: float) -> Iterator[None]:
    """Have whatever shows its progress end at a moment of ``time.monotonic``."""
    Deadline.current = moment
    try:
        yield
    finally:
        Deadline.current = None
