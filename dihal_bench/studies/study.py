"""A study: one run per candidate and seed, laid out in a folder and given to an executor.

A comparison's candidates are interfaces in the parts of a table, a sweep's are layers, changes of
coordinates, or values of a configuration key. What tells them apart is how a candidate becomes a
configuration, and which of them the others are compared with.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dihal_bench.config.identity import identity
from dihal_bench.runs.folder import folder_in
from dihal_bench.runs.work_unit import Run, WorkUnit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from dihal_bench.config.schema import RunConfig


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One thing that is tried.

    Attributes:
        label: what its rows are called.
        title: what its runs are called; the label where it is empty.
    """

    label: str
    title: str = ""


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[AnyCandidate]):
    """One run of a study.

    Attributes:
        candidate: what it is of.
        run: its configuration, its folder, its title.
    """

    candidate: AnyCandidate
    run: Run

    def row(self) -> dict[str, Any]:
        """Return what a dry run says of it."""
        config = self.run.config
        return {
            "seed": config.seed,
            "from": config.from_layer,
            "layer": config.layer,
            "done": self.run.done,
            "folder": str(self.run.folder),
        }


def plan(
    candidates: Iterable[AnyCandidate],
    seeds: Sequence[int],
    configure: Callable[[AnyCandidate, int], RunConfig],
    out: Path,
) -> list[Entry[AnyCandidate]]:
    """Return the runs of a study, seed by seed, so that an early stop leaves whole seeds.

    Candidates of one configuration have one run.

    Args:
        candidates: in the order of the tables.
        seeds: of training, data order and noise.
        configure: returns the configuration of a candidate and seed.
        out: the study's folder.
    """
    made = [(own, configure(own, seed)) for seed in seeds for own in candidates]
    scored: dict[Path, set[str]] = defaultdict(set)
    for _, config in made:
        scored[folder_in(out / "runs", config)].add(identity(config).evaluation)
    entries = []
    for own, config in made:
        folder = folder_in(out / "runs", config)
        if len(scored[folder]) > 1:  # candidates that differ in how they are scored alone
            folder = folder.with_name(f"{folder.name}-{identity(config).evaluation}")
        title = f"{own.title or own.label}, seed {config.seed}"
        entries.append(Entry(candidate=own, run=Run(config=config, folder=folder, title=title)))
    return entries


def work_units(
    entries: Iterable[Entry[Any]], *, shared: Path, command: str, per_pass: int = 1
) -> list[WorkUnit]:
    """Return the runs in groups that one process does, each trained on one pass of the teacher.

    Args:
        entries: of the study.
        shared: folder of what runs have in common.
        command: the command line, for the records.
        per_pass: runs of a group, at most.
    """
    runs: dict[Path, Run] = {}
    for entry in entries:
        runs.setdefault(entry.run.folder, entry.run)
    found = []
    for _, group in itertools.groupby(runs.values(), key=_together):
        alike = list(group)
        for lo in range(0, len(alike), per_pass):
            some = tuple(alike[lo : lo + per_pass])
            found.append(WorkUnit(runs=some, shared=shared, command=command))
    return found


def _together(run: Run) -> tuple[Any, ...]:
    """What runs must have in common to learn from the same batches."""
    config = run.config
    parts = (config.text, config.budget, config.train)
    place = (config.backbone, config.corpus, config.device, config.dtype, config.seed)
    return (*place, *(astuple(part) for part in parts))
