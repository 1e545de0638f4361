"""Figures of geometry: proxies and score over depth, and every cell of the protocol grid."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.core.plotting import BLUE, ORANGE, bare, save, style
from dihal_bench.studies.protocol_grid.grid import AXES, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from dihal_bench.geometry.locate import Located
    from dihal_bench.studies.protocol_grid.grid import Grid

_DOWN, _ACROSS = ("tokens", "space", "neighbours"), ("curvature", "rank", "ridge")
_NAMES: dict[object, str] = {
    "all": "all tokens",
    "without position 0": "without\nposition 0",
    "without outliers": "without\noutliers",
    "rms": "RMS",
    "largest": r"curvature 1 / $\lambda_{max}$",
    "trace": "curvature 1 / trace",
    "stable": r"rank tr / $\lambda_{max}$",
    "participation": "rank: participation ratio",
    "entropy": "rank: exp(entropy)",
}
_UNSURE = 0.5  # share of small resamples below which a selection is marked


def draw_grid(grid: Grid, stem: Path) -> list[Path]:
    """Draw a heat map of the selected layers beside how often each is selected, as PNG and SVG.

    Args:
        grid: what was found.
        stem: path of the figures without their suffix.

    Returns:
        The two paths.
    """
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11.6, 8.8))
        spec = figure.add_gridspec(
            *(1, 2), width_ratios=(6, 1), left=0.1, right=0.965, top=0.86, bottom=0.085, wspace=0.11
        )
        colours = _colours(len(grid.layers))
        heat = figure.add_subplot(spec[0])
        _heat_map(heat, grid, colours)
        _bars(figure.add_subplot(spec[1]), grid, colours)
        _title(figure, grid)
        return save(figure, stem)


def _colours(layers: int) -> NDArray[np.float64]:
    from matplotlib import colormaps

    shades: NDArray[np.float64] = colormaps["viridis"](np.linspace(0.02, 0.98, layers))[:, :3]
    return shades


def _places(axes: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(itertools.product(*(AXES[axis] for axis in axes)))


def _heat_map(axis: Axes, grid: Grid, colours: NDArray[np.float64]) -> None:
    rows, columns = _places(_DOWN), _places(_ACROSS)
    cells = {cell.protocol: cell for cell in grid.cells}
    layers = [layer.layer for layer in grid.layers]
    image = np.empty((len(rows), len(columns), 3))
    unsure = []
    for (y, down), (x, across) in itertools.product(enumerate(rows), enumerate(columns)):
        values = dict(zip((*_DOWN, *_ACROSS), (*down, *across), strict=True))
        cell = cells[Protocol(**values)]
        image[y, x] = colours[layers.index(cell.selected)]
        if cell.small_share < _UNSURE:
            unsure.append((x, y))
    axis.imshow(image, aspect="auto", interpolation="nearest")
    if unsure:
        axis.plot(
            *zip(*unsure, strict=True),
            ".",
            color="white",
            markersize=3.4,
            markeredgecolor="0.2",
            markeredgewidth=0.3,
        )
    _labels(axis)
    _mark_paper(axis, rows, columns)


def _labels(axis: Axes) -> None:
    """Name the values of all axes, the outer ones in the margins, and part their blocks."""
    ks, ridges = AXES["neighbours"], AXES["ridge"]
    rows, columns = _places(_DOWN), _places(_ACROSS)
    axis.set_yticks(range(len(rows)), [str(row[-1]) for row in rows], fontsize=6)
    exponents = [f"{np.log10(column[-1]):.0f}" for column in columns]
    axis.set_xticks(range(len(columns)), exponents, fontsize=6)
    axis.tick_params(length=0, pad=2)
    axis.set_xlabel("ridge ρ, as a power of ten", labelpad=4)
    axis.text(-0.006, 1.008, "k", transform=axis.transAxes, ha="right", va="bottom", fontsize=8)
    axis.spines[:].set_visible(False)
    for n in range(1, len(rows) // len(ks)):
        wide = n % len(AXES["space"]) == 0
        axis.axhline(n * len(ks) - 0.5, color="white", linewidth=5 if wide else 1.6)
    for n in range(1, len(columns) // len(ridges)):
        wide = n % len(AXES["rank"]) == 0
        axis.axvline(n * len(ridges) - 0.5, color="white", linewidth=5 if wide else 1.6)
    down, across = axis.get_yaxis_transform(), axis.get_xaxis_transform()
    for n, (tokens, space) in enumerate(_places(_DOWN[:2])):
        middle = (n + 0.5) * len(ks) - 0.5
        axis.text(
            -0.03,
            middle,
            _NAMES.get(space, space),
            transform=down,
            ha="right",
            va="center",
            rotation=90,
            fontsize=7.5,
        )
        if n % 3 == 1:
            axis.text(
                -0.075,
                middle,
                _NAMES[tokens],
                transform=down,
                ha="center",
                va="center",
                rotation=90,
                fontweight="bold",
            )
    for n, (curvature, rank) in enumerate(_places(_ACROSS[:2])):
        middle = (n + 0.5) * len(ridges) - 0.5
        axis.text(
            middle, 1.008, _NAMES[rank], transform=across, ha="center", va="bottom", fontsize=7.5
        )
        if n % 3 == 1:
            axis.text(
                middle,
                1.035,
                _NAMES[curvature],
                transform=across,
                ha="center",
                va="bottom",
                fontweight="bold",
            )


def _mark_paper(axis: Axes, rows: list[tuple[Any, ...]], columns: list[tuple[Any, ...]]) -> None:
    from matplotlib.patches import Rectangle

    paper = Protocol()
    y = rows.index(tuple(getattr(paper, name) for name in _DOWN))
    x = columns.index(tuple(getattr(paper, name) for name in _ACROSS))
    for colour, width in (("white", 4.0), ("#d1001f", 2.0)):
        box = Rectangle(
            (x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=5
        )
        axis.add_patch(box)


def _bars(axis: Axes, grid: Grid, colours: NDArray[np.float64]) -> None:
    """How many protocols select each layer; the key of the colours as well."""
    layers = [layer.layer for layer in grid.layers]
    shares = [100 * grid.selections[layer] / len(grid.cells) for layer in layers]
    axis.barh(layers, shares, color=colours, edgecolor="0.4", linewidth=0.4)
    swatches = np.full(len(layers), -0.05 * max(shares))  # a colour also where there is no bar
    axis.scatter(swatches, layers, c=colours, marker="s", s=22, clip_on=False)
    axis.set_yticks(layers)
    axis.tick_params(axis="y", length=0, pad=9)
    axis.set_title("layer that is selected\n(% of the protocols)", fontsize=9.5)
    axis.set_xlim(0, 1.25 * max(shares))
    axis.set_xticks([])
    for layer, share in zip(layers, shares, strict=True):
        if share:
            axis.text(share, layer, f" {share:.1f}", va="center", fontsize=8)
    bare(axis, "x")
    axis.spines["bottom"].set_visible(False)


def _title(figure: Figure, grid: Grid) -> None:
    paper = grid.paper
    share = grid.selections[paper.selected] / len(grid.cells)
    figure.text(
        *(0.02, 0.965),
        f"Layer {paper.selected} is the paper's choice (red box); "
        f"{share:.0%} of {len(grid.cells):,} protocols agree",
        fontsize=13,
        fontweight="bold",
        va="center",
    )
    figure.text(
        *(0.02, 0.932),
        "Colour: the layer that a protocol selects. Dot: fewer than half of "
        f"{grid.sample['stability_resamples']} resamples of "
        f"{grid.sample['stability_tokens']:,} tokens agree.",
        color="0.35",
        va="center",
    )


_PANELS = {
    "curvature": "local curvature κ",
    "stiffness": "global stiffness m",
    "effective_rank": "effective rank r",
    "score": "score S = z(κ) + z(m) − z(r)",
}
_LOGARITHMIC = ("curvature", "stiffness")
_COLOURS = {"paper": BLUE, "matched": ORANGE}
_MARKERS = {"paper": "o", "matched": "s"}
_LABELS = {"paper": "paper: raw states", "matched": "matched: the diffused space"}


def draw_layers(located: Located, stem: Path) -> list[Path]:
    """Draw proxies and score over depth with their intervals, as PNG and SVG of fixed bytes.

    Args:
        located: what was found.
        stem: path of the figures without their suffix.

    Returns:
        The two paths.
    """
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10.5, 6.2), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True)
        for axis, (name, title) in zip(axes.flat, _PANELS.items(), strict=True):
            _panel(axis, located, name)
            axis.set_title(title, loc="left", fontweight="bold")
        for axis in axes[1]:
            axis.set_xlabel("layer (blocks below the cut)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
        return save(figure, stem)


def _panel(axis: Any, located: Located, name: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    layers = located.layers
    for cell, label in _LABELS.items():
        data = located.cells[cell]
        rows = [row[name] for row in data["layers"]]
        lows, highs = ([row[end] for row in rows] for end in ("lo", "hi"))
        colour = _COLOURS[cell]
        axis.fill_between(layers, lows, highs, color=colour, alpha=0.18, linewidth=0)
        values = [row["value"] for row in rows]
        axis.plot(layers, values, color=colour, marker=_MARKERS[cell], markersize=4.5, label=label)
        if name == "score":
            selected = data["selected"]
            axis.plot(
                selected,
                values[layers.index(selected)],
                marker="o",
                markersize=13,
                markerfacecolor="none",
                markeredgecolor=colour,
                markeredgewidth=1.6,
                linestyle="none",
            )
    if name in _LOGARITHMIC:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0), numticks=12))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    if name == "score":
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axis.annotate(
            "circled: selected",
            (0.98, 0.95),
            xycoords="axes fraction",
            ha="right",
            va="top",
            color="0.4",
        )
    axis.set_xticks(layers)
    bare(axis, "y")
