"""Everything the leaderboard shows, as plain values: tables, runs, sweeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench import __version__
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import safe
from dihal_bench.core.progress import progress
from dihal_bench.evaluation.intervals import over_trainings
from dihal_bench.leaderboard.groups import grouped, public
from dihal_bench.leaderboard.store import LARGEST
from dihal_bench.leaderboard.tables import likelihood_table
from dihal_bench.leaderboard.tasks import place_of, task_tables, under_teacher
from dihal_bench.results.metrics import ENTROPY, GEN_PPL, KL
from dihal_bench.results.study_schema import SweepFields, read_result
from dihal_bench.studies.sweep.outcomes import SHORT, TITLES
from dihal_bench.studies.sweep.predictors import DEPTH, SCORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.leaderboard.groups import Group
    from dihal_bench.results.record import Record
    from dihal_bench.results.table import Table

VERSION = 1  # of the values that the site is drawn from
_POINTS = 200  # of a curve
_NOT_SHOWN = ("sums", "seal", "audits", "weights")  # of a record
_MAIN_LOSS = KL.key  # of a sweep
_PREDICTORS = (SCORE, f"{SCORE}, matched", DEPTH)  # that a reader looks for first


@dataclass(frozen=True, kw_only=True)
class Board:
    """Everything that the leaderboard shows.

    Attributes:
        tables: in the order of their groups.
        runs: plain values of every run.
        sweeps: plain values of every sweep.
    """

    tables: list[Table]
    runs: list[dict[str, Any]]
    sweeps: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that the site is drawn from."""
        return {
            "version": VERSION,
            "generated_by": f"dihal-bench {__version__}",
            "tables": [table.to_dict() for table in self.tables],
            "runs": self.runs,
            "sweeps": self.sweeps,
        }


def board_of(records: Sequence[Record], sweeps: Iterable[Mapping[str, Any]]) -> Board:
    """Group records, compute their tables, and return all that is shown.

    Args:
        records: valid ones.
        sweeps: as ``read_sweeps`` returns them.
    """
    groups = grouped(records)
    tables: list[Table] = []
    with progress("tables", len(groups), unit="tables") as bar:
        for group in groups:
            tables += [likelihood_table(group), *task_tables(group)]
            bar.update(1)
    shown = [_sweep(own) for own in sorted(sweeps, key=_telling_first)]
    names = _distinct([own["id"] for own in shown])
    return Board(
        tables=[
            replace(table, id=name)
            for table, name in zip(tables, _distinct([t.id for t in tables]), strict=True)
        ],
        runs=[_run(label, record, group) for group in groups for label, record in group.all],
        sweeps=[own | {"id": name} for own, name in zip(shown, names, strict=True)],
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names of which each that stood before has a number."""
    taken: dict[str, None] = {}
    for name in names:
        own, number = name, 2
        while own in taken:
            own, number = f"{name}-{number}", number + 1
        taken[own] = None
    return list(taken)


def _run(label: str, record: Record, group: Group) -> dict[str, Any]:
    data = record.data
    kept = {key: value for key, value in data.items() if key not in _NOT_SHOWN}
    kept["schema"] = record.as_written["schema"]
    kept["bridge"] = {**data["bridge"], "curves": _thinned(data["bridge"].get("curves", {}))}
    tasks = data.get("tasks", {})
    audits = {task: own for task, own in data.get("audits", {}).items() if task in tasks}
    kept["excerpts"] = [one for own in audits.values() for one in own.get("excerpts") or ()]
    keys = {task: {"task": task, "key": tasks[task]["key"]} for task in audits}
    kept["frontier"] = [
        {**keys[task], **point}
        for task, own in audits.items()
        for point in own.get("frontier") or ()
    ]
    kept["beside"] = [
        {**keys[task], **point} for task, own in audits.items() for point in _beside(own)
    ]
    return {
        "id": data["id"],
        "interface": data["interface"]["name"],
        "label": label,
        "regime": data["regime"],
        "backbone": group.setting.backbone,
        "corpus": group.setting.corpus,
        "budget": data["config"]["budget"]["name"],
        "seed": data["config"]["seed"],
        "layer": data["layer"],
        "replaced": data["interface"]["replaced"],
        "table": group.name,
        "created": data["created"],
        "within": group.setting.within,
        "record": kept,
    }


def _beside(audit: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return where real text stands beside a frontier, and samplers without a model.

    Of these the published ones, and those that are below the teacher.
    """
    measured = {"real text": audit.get("data") or {}}
    below = under_teacher(audit)
    for own in audit.get("impostors") or ():
        if own["published"] or own["name"] in below:
            measured[own["name"]] = own["measures"]
    for row, measures in measured.items():
        place = place_of(measures)
        if place:
            yield {"row": row, ENTROPY.key: place[0], GEN_PPL.key: place[1]}


def _thinned(value: Any) -> Any:
    """Return nested values with evenly spaced points of what is longer than 200."""
    if isinstance(value, dict):
        return {key: _thinned(inner) for key, inner in value.items()}
    if isinstance(value, list) and len(value) > _POINTS:
        places = np.unique(np.linspace(0, len(value) - 1, _POINTS).round().astype(int))
        return [value[place] for place in places]
    return value


def _sweep(own: Mapping[str, Any]) -> dict[str, Any]:
    axis = own["axis"]
    return {
        "id": safe(f"{own['backbone']}-{axis}"),
        "title": own["title"],
        "axis": axis,
        "backbone": public(own["backbone"]),
        "layers": list(own["layers"]),
        "losses": {
            name: {"title": TITLES.get(name, name), "cells": _intervals(np.array(values))}
            for name, values in own["losses"].items()
        },
        "predictors": dict(own["predictions"]),
        "correlations": [
            {
                "predictor": predictor,
                "loss": SHORT.get(loss, loss),
                "kendall": found["kendall"],
                "minus_depth": found["advantage"],
                "picks": own["candidates"][found["predicted"]],
                "regret": found["regret"]["value"],
            }
            for loss, some in _led(own["ranking"], tuple(TITLES))
            for predictor, found in _led(some, _PREDICTORS)
        ],
    }


def _telling_first(sweep: Mapping[str, Any]) -> tuple[bool, bool]:
    """Put those first whose layers replace equally many blocks, and are not in order by depth.

    Where loss rises with every layer, depth is perfect, and no score can be seen to be worse or
    better than it.
    """
    by_depth = sweep["ranking"].get(_MAIN_LOSS, {}).get(DEPTH, {}).get("kendall", {}).get("value")
    return not str(sweep["axis"]).startswith("span-"), by_depth == 1.0


def _led(values: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, Any]]:
    """Return entries with some names before all others, which keep their order."""
    leading = [(name, values[name]) for name in names if name in values]
    return leading + [(name, own) for name, own in values.items() if name not in names]


def _intervals(values: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """Return the means over trainings [n, candidates], with Student's interval if n > 1."""
    means, ends = values.mean(0), over_trainings(values)
    if ends is None:
        return [{"value": float(mean)} for mean in means]
    return [
        {"value": float(mean), "lo": float(lo), "hi": float(hi)}
        for mean, lo, hi in zip(means, *ends, strict=True)
    ]


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
