"""A sweep of one backbone: prepared, and once its runs are done, read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dihal_bench.runs.cost_estimate import CostEstimate, locating
from dihal_bench.studies.protocol_grid.of_run import grid_of_run, grid_seconds
from dihal_bench.studies.sweep.cells import Cells
from dihal_bench.studies.sweep.intervention import Intervention, geometry
from dihal_bench.studies.sweep.outcomes import Outcomes
from dihal_bench.studies.sweep.predictors import layer_predictions, subsamples
from dihal_bench.studies.sweep.table import SweepTable

if TYPE_CHECKING:
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
        return SweepTable.of(title, outcomes, predictions, sample=sample, resamples=resamples)

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
        return cost + CostEstimate(proxies=grid_seconds(self.job.config.locate, layers, size))

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
