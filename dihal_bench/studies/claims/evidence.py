"""The results that claims are judged by, read from files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.results.record import Record
from dihal_bench.results.study_schema import GridFields, ReplicationFields, SweepFields, read_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

LAYERS, TRANSFORM = "layers", "transform"


@dataclass
class Evidence:
    """All results under some folders.

    Attributes:
        sweeps: what sweeps wrote.
        replications: what several of them wrote together.
        grids: what protocol grids wrote.
        records: of runs.
    """

    sweeps: list[dict[str, Any]] = field(default_factory=list)
    replications: list[dict[str, Any]] = field(default_factory=list)
    grids: list[dict[str, Any]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Evidence:
        """Read every result under the folders; other files are left alone.

        Raises:
            UserError: a folder does not exist or holds no result, a result cannot be read, there
                are two of one, or one rests on another that is not there.
        """
        found = cls()
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f"{folder} is no folder; give one that results were written to.")
            if not found._add(folder):
                raise UserError(
                    f"{folder} holds no result that claims are judged by (sweep-layers.json, "
                    "sweep-span-*.json, sweep-transform.json, grid.json, record.json); give a "
                    "folder that sweep, locate --grid, compare or run wrote to."
                )
        found._check_grounds()
        return found

    def kinds(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield the sweeps over layers: an axis, and those along it that spent the same.

        Axes on which all layers replace the same number of blocks come first.
        """
        axes = {own["axis"] for own in self.sweeps} - {LAYERS, TRANSFORM}
        for axis in (*sorted(axes), LAYERS):
            for alike in self.along(axis):
                yield axis, alike

    def along(self, axis: str) -> list[list[dict[str, Any]]]:
        """Return the sweeps along an axis, those of one budget together, the smallest first."""
        found: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for own in self.sweeps:
            if own["axis"] == axis:
                found.setdefault(spent(own), []).append(own)
        return [found[key] for key in sorted(found)]

    def _add(self, folder: Path) -> int:
        """Read what is under a folder, and return how many results there are."""
        count = 0
        for path in sorted(folder.rglob("*.json")):
            for fits, take in _READERS:
                if fits(path):
                    take(self, path)
                    count += 1
        return count

    def _check_grounds(self) -> None:
        known = {own["id"] for own in self.sweeps}
        for own in self.replications:
            for name, sweep in own["sweeps"].items():
                if sweep not in known:
                    raise UserError(
                        f"replication-{own['axis']}.json rests on the sweep {sweep} of {name}, "
                        "which is not among the results; give the folder that holds it, or run "
                        "its command again."
                    )


def spent(sweep: Mapping[str, Any]) -> tuple[int, int]:
    """Return the tokens that each run of a sweep trained on: diffusion, recovery."""
    budget = sweep["budget"]
    return budget["diffusion_tokens"], budget["recovery_tokens"]


def _is_sweep(path: Path) -> bool:
    axis = path.stem.removeprefix("sweep-")
    return axis != path.stem and (axis in (LAYERS, TRANSFORM) or axis.startswith("span-"))


def _sweep(found: Evidence, path: Path) -> None:
    content = read_result(path, SweepFields)
    axis, budget = content["axis"], spent(content)
    alike = [own for own in found.sweeps if (own["axis"], spent(own)) == (axis, budget)]
    _check_new(content, alike, path)
    found.sweeps.append(content)


def _replication(found: Evidence, path: Path) -> None:
    found.replications.append(read_result(path, ReplicationFields))


def _grid(found: Evidence, path: Path) -> None:
    content = read_result(path, GridFields)
    _check_new(content, found.grids, path)
    found.grids.append(content)


def _check_new(content: Mapping[str, Any], others: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Refuse another result of one backbone: which is meant cannot be told, and it counts once.

    Raises:
        UserError: one of the others is of a backbone of that name, or of its weights.
    """
    weights = set(content["rests_on"]["backbones"])
    for own in others:
        if own["backbone"] == content["backbone"] or weights & {*own["rests_on"]["backbones"]}:
            name = content["backbone"]
            same = "" if own["backbone"] == name else f" (there called {name})"
            raise UserError(
                f"{path} is a second result of {own['backbone']}{same} of its kind; give folders "
                "that hold one of each."
            )


def _record(found: Evidence, path: Path) -> None:
    found.records.append(Record.read(path))


_READERS: list[tuple[Callable[[Path], bool], Callable[[Evidence, Path], None]]] = [
    (_is_sweep, _sweep),
    (lambda path: path.name.startswith("replication-"), _replication),
    (lambda path: path.name == "grid.json", _grid),
    (lambda path: path.name == "record.json" or path.parent.name == "records", _record),
]
