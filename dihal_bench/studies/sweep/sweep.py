"""A sweep of one backbone: prepared, and once its runs are done, read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError
from dihal_bench.runs.cost_estimate import CostEstimate, locating
from dihal_bench.runs.timing import Work
from dihal_bench.studies.protocol_grid.of_run import grid_of_run, grid_seconds
from dihal_bench.studies.sweep.cells import Cells
from dihal_bench.studies.sweep.intervention import Intervention, geometry
from dihal_bench.studies.sweep.outcomes import Outcomes
from dihal_bench.studies.sweep.predictors import layer_predictions, subsamples
from dihal_bench.studies.sweep.table import SweepTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dihal_bench.runs.context import RunContext
    from dihal_bench.studies.study import Entry
    from dihal_bench.studies.sweep.plan import Axis, SweepCandidate


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs of one backbone along one axis.

    Attributes:
        name: of the backbone, short.
        folder: that holds runs, what they share, and the results.
        axis: what is swept.
        entries: the runs.
        job: with what they all have in common.
        grid: whether every definition of the score is ranked too.
    """

    name: str
    folder: Path
    axis: Axis
    entries: list[Entry[SweepCandidate]]
    job: RunContext
    grid: bool = False

    def table(self) -> SweepTable:
        """Read the runs and rank the candidates by all predictors.

        Raises:
            UserError: a run is not complete, or the runs had different budgets.
        """
        outcomes = Outcomes.gather(self.entries)
        predictions, sample = {}, None
        if self.axis.layers and not self.transforms:
            first = self.entries[: len(outcomes.candidates)]
            ends = {e.candidate.layer or 0: e.run.config.from_layer for e in first}
            predictions = layer_predictions(self.job, self.axis.layers, ends)
            sample = subsamples(self.job)
        resamples = self.job.config.score.resamples
        title = self.axis.title
        return SweepTable(title, outcomes, predictions, sample=sample, resamples=resamples)

    @property
    def stem(self) -> Path:
        """Path of the results, without a suffix."""
        return self.folder / f"sweep-{self.axis.name}"

    @property
    def ranking_cost(self) -> CostEstimate:
        """What the predictors cost once the runs are done, if they are not kept from before."""
        cost = locating(self.job) if self.axis.layers else CostEstimate()
        if not self.grid:
            return cost
        backbone = self.job.inputs.backbone
        layers, size = backbone.blocks - 1, backbone.hidden_size
        seconds = grid_seconds(self.job.config.locate, layers, size)
        return cost + CostEstimate(parts={"grid": Work(seconds=seconds)}, proxies=seconds)

    def cells(self, table: SweepTable) -> Cells | None:
        """Rank the layers by every cell of the protocol grid, if that was asked for."""
        if not self.grid or not table.ranking:
            return None
        return Cells.of(grid_of_run(self.job), self.axis.layers, table.outcomes.losses)

    @property
    def transforms(self) -> list[str]:
        """The changes of coordinates that are swept, the identity first; none on other axes."""
        named = (candidate.transform for candidate in self.axis.candidates)
        return list(dict.fromkeys(name for name in named if name is not None))

    def intervention(self, table: SweepTable) -> Intervention:
        """Compare the geometry of every transform with what came out of it."""
        measured = geometry(self.job, self.axis.layers, self.transforms)
        resamples = self.job.config.score.resamples
        return Intervention.of(measured, table.outcomes, resamples=resamples)


_FIGURES = ("png", "svg")


@dataclass(frozen=True, kw_only=True)
class Extent:
    """What a result is of.

    Attributes:
        candidates: their labels.
        seeds: of the trainings.
    """

    candidates: tuple[str, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, sweep: Sweep) -> Extent:
        """Of a sweep that is planned."""
        return cls(
            candidates=tuple(candidate.label for candidate in sweep.axis.candidates),
            seeds=tuple(dict.fromkeys(entry.run.config.seed for entry in sweep.entries)),
        )

    @classmethod
    def read(cls, path: Path) -> Extent | None:
        """Of a result that was written; None where there is none.

        Raises:
            UserError: the file is no result of a sweep.
        """
        if not path.exists():
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return cls(candidates=tuple(kept["candidates"]), seeds=tuple(kept["seeds"]))
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is not a sweep's result, and would be overwritten; move it away, or "
                "choose another --out."
            ) from error


def check_earlier(sweep: Sweep) -> None:
    """Refuse to overwrite an earlier result that has candidates or seeds which this one has not.

    Raises:
        UserError: it has.
    """
    path, new = _result(sweep), Extent.of(sweep)
    kept = Extent.read(path)
    if kept is None:
        return
    lost = {
        "candidates": [label for label in kept.candidates if label not in new.candidates],
        "seeds": [str(seed) for seed in kept.seeds if seed not in new.seeds],
    }
    if any(lost.values()):
        named = " and ".join(f"{what} {', '.join(own)}" for what, own in lost.items() if own)
        raise UserError(
            f"{path} would be overwritten, which has {named} as well; choose another --out, or "
            "name these too."
        )


def check_together(sweeps: Sequence[Sweep], root: Path) -> None:
    """Refuse to overwrite what an earlier sweep said over backbones that this one leaves out.

    Args:
        sweeps: one per backbone.
        root: folder of what is said about all of them together.

    Raises:
        UserError: it rests on others as well, or the file is no result over backbones.
    """
    stem = replication_stem(root, sweeps[0])
    path = stem.with_name(f"{stem.name}.json")
    if len(sweeps) < 2 or not path.exists():
        return
    try:
        kept = list(json.loads(path.read_text(encoding="utf-8"))["sweeps"])
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not a result over backbones, and would be overwritten; move it away, or "
            "choose another --out."
        ) from error
    lost = [name for name in kept if name not in {sweep.name for sweep in sweeps}]
    if lost:
        raise UserError(
            f"{path} would be overwritten, which has the backbones {', '.join(lost)} as well; "
            "choose another --out, or name these too."
        )


def replication_stem(root: Path, sweep: Sweep) -> Path:
    """Return where what several backbones say together is written, without a suffix."""
    return root / f"replication-{sweep.axis.name}"


def clear_earlier(sweep: Sweep) -> None:
    """Take away what was drawn of an earlier result that this one replaces."""
    if Extent.read(_result(sweep)) == Extent.of(sweep):
        return
    grid = sweep.folder / f"grid-{sweep.axis.name}"
    stale = [(sweep.stem, _FIGURES), (grid, (*_FIGURES, "csv", "md"))]
    for stem, suffixes in stale:
        for suffix in suffixes:
            stem.with_name(f"{stem.name}.{suffix}").unlink(missing_ok=True)


def _result(sweep: Sweep) -> Path:
    return sweep.stem.with_name(f"{sweep.stem.name}.json")
