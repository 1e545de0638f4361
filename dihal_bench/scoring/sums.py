"""Sums per document on disk, so that rows of different runs can be compared in pairs afterwards."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from dihal_bench.errors import UserError
from dihal_bench.files import atomic_path
from dihal_bench.scoring.likelihood import Row, Totals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_COUNTS = ("tokens", "words", "bytes")


def write_sums(path: Path, totals: Mapping[Row, Totals]) -> None:
    """Write the sums per document of all rows, atomically."""
    arrays = {}
    for index, sums in enumerate(totals.values()):
        counts = {name: getattr(sums, name) for name in _COUNTS}
        for name, values in {**counts, **sums.sums}.items():
            arrays[f"{index}/{name}"] = values.astype("float64")
    rows = json.dumps([asdict(row) for row in totals])
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={"rows": rows})


def read_sums(path: Path) -> dict[Row, Totals]:
    """Read what ``write_sums`` wrote.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    try:
        with safe_open(path, "np") as file:
            rows = [Row(**fields) for fields in json.loads((file.metadata() or {})["rows"])]
        arrays = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete the run's record.json and score it again."
        ) from error
    totals = {}
    for index, row in enumerate(rows):
        mine = f"{index}/"
        own = {k.removeprefix(mine): v for k, v in arrays.items() if k.startswith(mine)}
        counts = [own.pop(name) for name in _COUNTS]
        totals[row] = Totals(counts[0], counts[1], counts[2], own)
    return totals
