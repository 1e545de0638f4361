"""What earlier versions wrote becomes what this one reads: one pure function per step.

A step takes the JSON object of its version and returns that of the next; ids and runs stay. Of that
object the seal was checked, and nothing else: a field may be missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.results.migrations import v3_to_v4

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Steps = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]

RECORD: Steps = {3: v3_to_v4.record}
STUDY: Steps = {3: v3_to_v4.study}  # sweeps, replications, grids
OLDEST = min(RECORD)
SCHEMA = max(RECORD) + 1


def version_of(data: Mapping[str, Any], default: int | None = None) -> int:
    """Return the version that a result was written in, if this program reads it.

    Args:
        data: its JSON object.
        default: of results that do not name one.

    Raises:
        UserError: it is of a newer version, or of none that is read; the sentence names no file.
    """
    version = data.get("schema", default)
    if type(version) is int and version > SCHEMA:
        raise UserError(
            f"its schema is {version}, and this version reads {OLDEST} to {SCHEMA}; install the "
            "newer dihal-bench that wrote it"
        )
    if type(version) is not int or version < OLDEST:
        raise UserError(
            f"its schema is {version!r}, and this version reads {OLDEST} to {SCHEMA}; read it with "
            "the version that wrote it, or run its command again with this one"
        )
    return version


def migrated(data: dict[str, Any], version: int, steps: Steps) -> dict[str, Any]:
    """Return a result as the present version writes it.

    Args:
        data: its JSON object, which is not changed.
        version: that it was written in.
        steps: by the version that each starts from.
    """
    for step in range(version, SCHEMA):
        data = steps[step](data)
    return data
