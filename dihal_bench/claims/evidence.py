"""The results that claims are judged by, read from files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dihal_bench.errors import UserError
from dihal_bench.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LAYERS, TRANSFORM = "layers", "transform"


@dataclass
class Evidence:
    """All results under some folders.

    Attributes:
        sweeps: axis -> backbone -> what the sweep wrote.
        replications: axis -> rows over backbones.
        grids: folder -> what the protocol grid wrote.
        records: of runs.
    """

    sweeps: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    replications: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    grids: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Evidence:
        """Read every result under the folders; other files are left alone.

        Raises:
            UserError: a folder does not exist, a result cannot be read, or there are two of one.
        """
        found = cls()
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f"{folder} is no folder; give one that results were written to.")
            for path in sorted(folder.rglob("*.json")):
                for fits, take in _READERS:
                    if fits(path):
                        take(found, path)
        return found

    @property
    def spans(self) -> list[str]:
        """The axes on which all layers replace the same number of blocks."""
        return sorted(axis for axis in self.sweeps if axis.startswith("span-"))

    def backbones(self, axis: str) -> dict[str, dict[str, Any]]:
        """Return the sweeps along an axis, by backbone."""
        return self.sweeps.get(axis, {})


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); make it again.") from error


def _sweep(found: Evidence, path: Path) -> None:
    content = _load(path)
    axis = path.stem.removeprefix("sweep-")
    _once(found.sweeps.setdefault(axis, {}), content["backbone"], content, path)


def _replication(found: Evidence, path: Path) -> None:
    _once(found.replications, path.stem.removeprefix("replication-"), _load(path), path)


def _grid(found: Evidence, path: Path) -> None:
    _once(found.grids, path.parent.name, _load(path), path)


def _once(results: dict[str, Any], key: str, content: Any, path: Path) -> None:
    """Keep a result.

    Raises:
        UserError: there is one of that name: which of them is meant cannot be told.
    """
    if key in results:
        raise UserError(
            f"{path} is a second result of {key} of its kind; give folders that hold one of each."
        )
    results[key] = content


def _record(found: Evidence, path: Path) -> None:
    found.records.append(Record.read(path))


_READERS: list[tuple[Callable[[Path], bool], Callable[[Evidence, Path], None]]] = [
    (lambda path: path.name.startswith("sweep-"), _sweep),
    (lambda path: path.name.startswith("replication-"), _replication),
    (lambda path: path.name == "grid.json", _grid),
    (lambda path: path.name == "record.json" or path.parent.name == "records", _record),
]
