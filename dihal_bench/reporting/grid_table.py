"""The protocol grid in text: what selects which layer, how surely, and because of what."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dihal_bench.geometry.locate import whole
from dihal_bench.reporting.writers import text
from dihal_bench.results.table import Table, TableRow, numbers, words
from dihal_bench.studies.protocol_grid.grid import AXES, TERMS
from dihal_bench.studies.protocol_grid.readings import OUTLIER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dihal_bench.results.table import Value
    from dihal_bench.studies.protocol_grid.grid import Cell, Grid

_COLUMNS = 8  # layers with a column of their own


def show_grid(grid: Grid) -> str:
    """Return the tables of a grid: its axes, its layers, and the paper's cell."""
    return "\n\n".join([_axes(grid), _layers(grid), "\n".join(_remarks(grid)) + "\n"])


def describe(cell: Cell) -> str:
    """Return a protocol in words."""
    own = cell.protocol
    return (
        f"{own.tokens}, {own.space}, curvature {own.curvature}, rank {own.rank}, "
        f"k {own.neighbours}, rho {own.ridge:g}"
    )


def _axes(grid: Grid) -> str:
    """Shares of the layers in the cells of every value of every axis."""
    layers = sorted(layer for layer, _ in grid.selections.most_common(_COLUMNS))
    rows: list[dict[str, Value]] = [{"axis": "all", "value": "", **_shares(grid.cells, layers)}]
    for axis, values in AXES.items():
        for place, value in enumerate(values):
            cells = [cell for cell in grid.cells if getattr(cell.protocol, axis) == value]
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            name = "" if place else axis
            rows.append({"axis": name, "value": shown, **_shares(cells, layers)})
    shares = [numbers(str(layer), f"layer {layer}") for layer in layers]
    columns = [words("axis"), numbers("value"), *shares, numbers("others"), numbers("small agree")]
    title = (
        f"{len(grid.cells):,} protocols: how many of them select each layer, "
        "and how many small resamples agree with their selection (%)"
    )
    table = Table(columns=columns, rows=[TableRow(cells=cells) for cells in rows])
    return f"{title}\n{text(table)}"


def _shares(cells: list[Cell], layers: list[int]) -> dict[str, Value]:
    counts = Counter(cell.selected for cell in cells)
    shares: dict[str, Value] = {str(one): 100 * counts[one] / len(cells) for one in layers}
    others = len(cells) - sum(counts[layer] for layer in layers)
    if others:
        shares["others"] = 100 * others / len(cells)
    agree = sum(cell.small_share for cell in cells) / len(cells)
    return shares | {"small agree": 100 * agree}


def _layers(grid: Grid) -> str:
    table = Table.of(
        grid.layers,
        (numbers("layer", type="integer"), lambda own: own.layer),
        (numbers("selected in", type="integer"), lambda own: grid.selections[own.layer]),
        (numbers("duplicates", type="share", digits=2), lambda own: own.duplicates),
        (
            numbers(f"norm > {OUTLIER:g}x median", type="share", digits=2),
            lambda own: own.outliers,
        ),
        (numbers("largest norm"), lambda own: f"{own.largest_norm:.3g}x"),
        (numbers("largest component"), lambda own: f"{own.largest_component:.3g}x"),
    )
    return text(table)


def _remarks(grid: Grid) -> Iterable[str]:
    paper, beside = grid.paper, grid.neighbours(grid.paper)
    others = [cell for cell in beside if cell.selected != paper.selected]
    yield (
        f"the paper's cell ({describe(paper)}) selects layer {paper.selected}: "
        f"{paper.share:.0%} of {grid.sample['resamples']} resamples and {paper.small_share:.0%} of "
        f"{grid.sample['stability_resamples']} small ones agree, "
        f"{_percent(grid.selections[paper.selected] / len(grid.cells))} % of all cells do; "
        f"a layer's rank varies by {paper.rank_spread:.2g} over resamples and by "
        f"{paper.small_rank_spread:.2g} over small ones; " + _driven(paper)
    )
    yield from whole(grid.sample)
    if not others:
        yield f"all {len(beside)} cells that differ from it on one axis select the same layer"
    changes = (
        f"{axis} {getattr(cell.protocol, axis)}: layer {cell.selected}"
        for cell in others
        for axis in cell.protocol.differences(paper.protocol)
    )
    if others:
        yield (
            f"of {len(beside)} cells that differ from it on one axis, {len(others)} select another "
            f"layer ({'; '.join(changes)})"
        )
    driven = Counter(term for cell in grid.cells for term in cell.drivers)
    yield "another layer is selected without " + ", ".join(
        f"the {term} in {_percent(driven[term] / len(grid.cells))} % of all cells" for term in TERMS
    )


def _driven(cell: Cell) -> str:
    if not cell.drivers:
        return "no single term decides it"
    return "; ".join(f"without the {term}, layer {cell.without[term]}" for term in cell.drivers)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
