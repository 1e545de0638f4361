"""The protocol grid in text: what selects which layer, how surely, and because of what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.geometry.locate import whole
from dihal_bench.reporting.writers import text
from dihal_bench.results.table import Table, numbers, words
from dihal_bench.studies.protocol_grid.grid import AXES, TERMS
from dihal_bench.studies.protocol_grid.readings import OUTLIER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from dihal_bench.studies.protocol_grid.grid import Cell, Grid

_COLUMNS = 8  # layers with a column of their own


def show_grid(grid: Grid) -> str:
    """Return the tables of a grid: its axes, its layers, and the paper's cell."""
    return "\n\n".join([_axes(grid), _layers(grid), "\n".join(_remarks(grid)) + "\n"])


def _axes(grid: Grid) -> str:
    """Shares of the layers in the cells of every value of every axis."""
    layers = sorted(layer for layer, _ in grid.selections.most_common(_COLUMNS))
    others = grid.selections.keys() - layers
    rows: list[tuple[str, str, list[Cell]]] = [("all", "", grid.cells)]
    for axis, values in AXES.items():
        for place, value in enumerate(values):
            cells = [cell for cell in grid.cells if getattr(cell.protocol, axis) == value]
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            rows.append(("" if place else axis, shown, cells))
    table = Table.of(
        rows,
        (words("axis"), lambda row: row[0]),
        (numbers("value"), lambda row: row[1]),
        *(
            (numbers(f"layer {own}"), lambda row, own=own: _selecting(row[2], {own}))
            for own in layers
        ),
        (numbers("others"), lambda row: _selecting(row[2], others) or None),
        (numbers("small agree"), lambda row: 100 * _mean([cell.small_share for cell in row[2]])),
    )
    title = (
        f"{len(grid.cells):,} protocols: how many of them select each layer, "
        "and how many small resamples agree with their selection (%)"
    )
    return f"{title}\n{text(table)}"


def _selecting(cells: list[Cell], layers: Collection[int]) -> float:
    """Return the percentage of cells that select one of these layers."""
    return 100 * sum(cell.selected in layers for cell in cells) / len(cells)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _layers(grid: Grid) -> str:
    outliers = f"norm > {OUTLIER:g}x median"
    table = Table.of(
        grid.layers,
        (numbers("layer", type="integer"), lambda own: own.layer),
        (numbers("selected in", type="integer"), lambda own: grid.selections[own.layer]),
        (numbers("duplicates", type="share", digits=2), lambda own: own.duplicates),
        (numbers(outliers, type="share", digits=2), lambda own: own.outliers),
        (numbers("largest norm"), lambda own: f"{own.largest_norm:.3g}x"),
        (numbers("largest component"), lambda own: f"{own.largest_component:.3g}x"),
    )
    return text(table)


def _remarks(grid: Grid) -> Iterable[str]:
    paper, beside = grid.paper, grid.neighbours(grid.paper)
    own, sample = paper.protocol, grid.sample
    yield (
        f"the paper's cell ({own.tokens}, {own.space}, curvature {own.curvature}, rank {own.rank}, "
        f"k {own.neighbours}, rho {own.ridge:g}) selects layer {paper.selected}: "
        f"{paper.share:.0%} of {sample['resamples']} resamples and {paper.small_share:.0%} of "
        f"{sample['stability_resamples']} small ones agree, "
        f"{_selecting(grid.cells, {paper.selected}):.0f} % of all cells do; "
        f"a layer's rank varies by {paper.rank_spread:.2g} over resamples and by "
        f"{paper.small_rank_spread:.2g} over small ones; {_driven(paper)}"
    )
    yield from whole(sample)
    changes = [
        f"{axis} {getattr(cell.protocol, axis)}: layer {cell.selected}"
        for cell in beside
        for axis in cell.protocol.differences(own)
        if cell.selected != paper.selected
    ]
    if changes:
        yield (
            f"of {len(beside)} cells that differ from it on one axis, {len(changes)} select "
            f"another layer ({'; '.join(changes)})"
        )
    else:
        yield f"all {len(beside)} cells that differ from it on one axis select the same layer"
    driven = {term: _mean([term in cell.drivers for cell in grid.cells]) for term in TERMS}
    yield "another layer is selected without " + ", ".join(
        f"the {term} in {100 * share:.0f} % of all cells" for term, share in driven.items()
    )


def _driven(cell: Cell) -> str:
    if not cell.drivers:
        return "no single term decides it"
    return "; ".join(f"without the {term}, layer {cell.without[term]}" for term in cell.drivers)
