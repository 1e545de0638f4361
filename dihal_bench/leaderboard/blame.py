"""What goes wrong over one record is said of that record, and the others go on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dihal_bench.results.record import Record

_REPORT = "report this: the field that it comes from should have been refused by name"


@contextmanager
def blamed_on(record: Path | str, what: str) -> Iterator[None]:
    """Turn whatever goes wrong into one sentence that names the record and the kind of failure.

    What a record may hold is said where it is read; this is for what nobody thought of there.

    Args:
        record: its file or id.
        what: was to be done with it, as a participle.

    Raises:
        UserError: something was raised; the cause is kept.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # records of strangers may make anything fail
        raise UserError(_sentence(str(record), what, error)) from error


def culprits(
    records: Sequence[Record], attempt: Callable[[Sequence[Record]], object], what: str
) -> dict[str, str]:
    """Find the records that something fails for when they are alone.

    Args:
        records: of which some, or all together, fail.
        attempt: does it for some records, or raises.
        what: it is, as a participle.

    Returns:
        Id -> a sentence that names the record and the kind of failure. Nothing: no single record is
        to blame.
    """
    try:
        attempt(records)
    except Exception as error:  # noqa: BLE001 (the same as above)
        if len(records) == 1:
            name = str(records[0].data["id"])
            return {name: _sentence(f"{name}.json", what, error)}
        half = len(records) // 2
        first = culprits(records[:half], attempt, what)
        return first | culprits(records[half:], attempt, what)
    return {}


def _sentence(record: str, what: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:200].rstrip(".") or "without a message"
    return f"{record} cannot be {what} ({type(error).__name__}: {said}); {_REPORT}."
