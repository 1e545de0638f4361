"""Would another definition of the score have told better? Every cell of the grid, ranked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.core.plotting import BLUE, GREY, ORANGE, bare, save, style
from dihal_bench.results.table import Table, TableRow, differences, numbers, words
from dihal_bench.studies.protocol_grid.grid import AXES, Protocol
from dihal_bench.studies.ranking.agreement import kendall
from dihal_bench.studies.sweep.outcomes import SHORT, TITLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dihal_bench.studies.protocol_grid.grid import Grid
    from dihal_bench.studies.ranking.agreement import Array


@dataclass(frozen=True, kw_only=True)
class Cells:
    """How well each definition ranks the layers.

    Attributes:
        protocols: of all cells.
        tau: loss -> Kendall's tau-b of every cell, [cells]; NaN where its scores do not vary.
        depth: loss -> that of minus the depth.
    """

    protocols: list[Protocol]
    tau: dict[str, Array]
    depth: dict[str, float]

    @classmethod
    def of(cls, grid: Grid, layers: Sequence[int], losses: Mapping[str, Array]) -> Cells:
        """Rank the layers by every cell.

        Args:
            grid: of the backbone.
            layers: candidates, ascending.
            losses: name -> [seeds, L].
        """
        protocols = [cell.protocol for cell in grid.cells]
        scores = np.stack([grid.scores(protocol, layers) for protocol in protocols])
        means = {name: own.mean(0) for name, own in losses.items()}
        depth = -np.asarray(layers, dtype=np.float64)
        return cls(
            protocols=protocols,
            tau={name: kendall(scores, -mean) for name, mean in means.items()},
            depth={name: float(kendall(depth, -mean)) for name, mean in means.items()},
        )

    def paper(self, loss: str) -> float:
        """Return tau of DiHAL's own definition."""
        return float(self.tau[loss][self.protocols.index(Protocol())])

    @property
    def choices(self) -> list[tuple[str, Any]]:
        """Every axis with every value that some cell has on it."""
        return [
            (axis, value)
            for axis, values in AXES.items()
            for value in values
            if any(getattr(protocol, axis) == value for protocol in self.protocols)
        ]

    def having(self, axis: str, value: Any) -> NDArray[np.bool_]:
        """Return which cells have a value on an axis, [cells]."""
        return np.array([getattr(protocol, axis) == value for protocol in self.protocols])

    def table(self) -> Table:
        """Return one row per cell."""
        taus = {f"tau_{name}": own.tolist() for name, own in self.tau.items()}
        rows = [
            TableRow(cells=asdict(own) | {key: values[i] for key, values in taus.items()})
            for i, own in enumerate(self.protocols)
        ]
        return Table(columns=[words(key) for key in (*AXES, *taus)], rows=rows)

    def summary(self) -> Table:
        """Return a row per loss: the paper's definition beside all others."""
        known = {name: tau[~np.isnan(tau)] for name, tau in self.tau.items()}
        return Table.of(
            self.tau,
            (words("loss"), lambda name: TITLES[name]),
            (differences("τ, paper's cell"), self.paper),
            (differences("τ, depth"), lambda name: self.depth[name]),
            (
                numbers("cells above depth", type="share"),
                lambda name: float((known[name] > self.depth[name] + 1e-9).mean()),
            ),
            (
                numbers("cells with τ > 0", type="share"),
                lambda name: float((known[name] > 0).mean()),
            ),
            (differences("median cell"), lambda name: float(np.median(known[name]))),
            (
                words("range"),
                lambda name: f"{known[name].min():+.2f} to {known[name].max():+.2f}",
            ),
        )

    def by_choice(self) -> Table:
        """Return a row per axis and value: the mean tau of the cells that have it."""
        return Table.of(
            self.choices,
            (words("axis"), lambda choice: choice[0]),
            (words("value"), lambda choice: str(choice[1])),
            *(
                (differences(SHORT[name]), lambda choice, tau=tau: self._mean(tau, *choice))
                for name, tau in self.tau.items()
            ),
        )

    def _mean(self, tau: Array, axis: str, value: Any) -> float | None:
        own = tau[self.having(axis, value)]
        known = own[~np.isnan(own)]
        return float(known.mean()) if len(known) else None


def draw(cells: Cells, stem: Path) -> list[Path]:
    """Draw how tau is distributed over the cells of every choice, a panel per loss."""
    labels = cells.choices
    with style():
        from matplotlib.figure import Figure

        size = (3.6 * len(cells.tau) + 1.5, 1.2 + 0.27 * len(labels))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(cells.tau), sharey=True, squeeze=False)[0]
        for axis, (name, tau) in zip(axes, cells.tau.items(), strict=True):
            _panel(axis, cells, name, tau, labels)
        axes[0].set_yticks(range(len(labels), 0, -1), [f"{a}: {v}" for a, v in labels])
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
        return save(figure, stem)


def _panel(
    axis: Any, cells: Cells, name: str, tau: Array, labels: Sequence[tuple[str, Any]]
) -> None:
    for place, (key, value) in enumerate(labels):
        own, y = tau[cells.having(key, value) & ~np.isnan(tau)], len(labels) - place
        if not len(own):
            continue
        low, *quartiles, high = np.percentile(own, (0, 25, 50, 75, 100))
        axis.plot([low, high], [y, y], color=GREY, linewidth=0.9, zorder=1)
        axis.plot(quartiles[::2], [y, y], color=BLUE, linewidth=5, alpha=0.45, zorder=2)
        axis.plot(quartiles[1], y, "|", color="0.1", markersize=9, markeredgewidth=1.8, zorder=3)
        if value == getattr(Protocol(), key):
            axis.plot(1.06, y, "<", color=ORANGE, markersize=4, clip_on=False)
    axis.axvline(cells.depth[name], color="0.1", linestyle=":", linewidth=1.2, label="depth")
    axis.axvline(cells.paper(name), color=ORANGE, linewidth=1.2, label="paper's cell")
    axis.plot([], [], color=BLUE, linewidth=5, alpha=0.45, label="half of the cells; bar: median")
    axis.plot([], [], "<", color=ORANGE, markersize=4, label="paper's choice")
    axis.set_xlim(-1.05, 1.05)
    axis.set_title(TITLES[name], loc="left", fontweight="bold")
    axis.set_xlabel("Kendall τ with minus the loss")
    bare(axis, "x")
