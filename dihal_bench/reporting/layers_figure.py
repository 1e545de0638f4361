"""The figure of ``locate``: the three proxies and the score over depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.core.plotting import BLUE, ORANGE, bare, save, style

if TYPE_CHECKING:
    from pathlib import Path

    from dihal_bench.geometry.locate import Located

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


def draw(located: Located, stem: Path) -> list[Path]:
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
