"""Sums per document, kept so that rows of different runs can be compared in pairs afterwards."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dihal_bench.core import kept
from dihal_bench.evaluation.likelihood import Row, Totals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dihal_bench.evaluation.intervals import Array

_COUNTS = ("tokens", "words", "bytes")
_MOST = 1024  # parts that a record tells apart
_DIGITS = 10  # significant ones of a sum in a record


def to_plain(totals: Mapping[Row, Totals]) -> dict[str, Any]:
    """Return the sums of all rows as values of a record.

    Of more than 1,024 documents neighbours are added up, until there are no more parts than that:
    resampled, these give the same intervals but for chance.

    Args:
        totals: by row, all of the same documents.
    """
    first = next(iter(totals.values()))
    documents = len(first.tokens)
    starts = np.unique(np.linspace(0, documents, min(documents, _MOST), False).astype(int))

    def parts(values: Array) -> list[float]:
        added = np.add.reduceat(values.astype("float64"), starts)
        return [float(f"{value:.{_DIGITS}g}") for value in added]

    return {
        "documents": documents,
        **{name: parts(getattr(first, name)) for name in _COUNTS},
        "rows": [
            {**asdict(row), "sums": {name: parts(values) for name, values in own.sums.items()}}
            for row, own in totals.items()
        ],
    }


def from_plain(plain: Mapping[str, Any]) -> dict[Row, Totals]:
    """Return what ``to_plain`` made values of."""
    counts = [np.array(plain[name]) for name in _COUNTS]
    found = {}
    for fields in plain["rows"]:
        row = Row(**{name: value for name, value in fields.items() if name != "sums"})
        sums = {name: np.array(values) for name, values in fields["sums"].items()}
        found[row] = Totals(counts[0], counts[1], counts[2], sums)
    return found


def write_sums(path: Path, totals: Mapping[Row, Totals]) -> None:
    """Write the sums per document of all rows, atomically."""
    arrays = {}
    for index, sums in enumerate(totals.values()):
        counts = {name: getattr(sums, name) for name in _COUNTS}
        for name, values in {**counts, **sums.sums}.items():
            arrays[f"{index}/{name}"] = torch.from_numpy(values.astype("float64"))
    kept.write_tensors(path, arrays, {"rows": [asdict(row) for row in totals]})


def read_sums(path: Path) -> dict[Row, Totals]:
    """Read what ``write_sums`` wrote.

    Raises:
        UserError: the file is missing or not intact.
    """
    found = kept.read_tensors(path)
    arrays = {name: values.numpy() for name, values in found.tensors.items()}
    rows = [Row(**fields) for fields in found.facts["rows"]]
    totals = {}
    for index, row in enumerate(rows):
        mine = f"{index}/"
        own = {k.removeprefix(mine): v for k, v in arrays.items() if k.startswith(mine)}
        counts = [own.pop(name) for name in _COUNTS]
        totals[row] = Totals(counts[0], counts[1], counts[2], own)
    return totals
