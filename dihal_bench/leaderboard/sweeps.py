"""Results of sweeps beside the records: read with the same suspicion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.leaderboard.store import LARGEST
from dihal_bench.results.study_schema import SweepFields, read_result

if TYPE_CHECKING:
    from pathlib import Path


def read_sweeps(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the results of sweeps over layers under a folder.

    Returns:
        Those that can be read, in the order of their paths, and a sentence for each of the others.
    """
    found, problems = [], []
    for path in sorted(folder.rglob("sweep-*.json")):
        axis = path.stem.removeprefix("sweep-")
        if axis != "layers" and not axis.startswith("span-"):
            continue
        try:
            found.append(_read_stranger(path))
        except UserError as error:
            problems.append(str(error))
    return found, problems


def _read_stranger(path: Path) -> dict[str, Any]:
    """Read one file that anybody may have written.

    Raises:
        UserError: it is a link or no file, too large, or no valid sweep.
    """
    if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
        raise UserError(
            f"{path} is not a readable sweep: it is no regular file of at most {LARGEST:,} bytes; "
            "put one there."
        )
    return read_result(path, SweepFields)
