"""The figure of a comparison: Brier-1 of every row, a panel per block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.core.plotting import BLUE, GREY, ORANGE, bare, save, style
from dihal_bench.results.metrics import BRIER1
from dihal_bench.studies.comparison.plan import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from dihal_bench.studies.comparison.table import Line

_COLOURS = {"interface": BLUE, "control": GREY, "trial": ORANGE, "teacher": "black"}
_LABELS = {
    "interface": "interface, all its steps",
    "control": "control without diffusion",
    "trial": "interface, its signal withheld",
}
_ONE_STEP = "interface, one step"

_LETTER = 0.075  # inches that a letter of a row's name takes


def draw(blocks: Mapping[str, Sequence[Line]], stem: Path) -> list[Path]:
    """Draw Brier-1 with its interval, the one score that all rows have in common.

    Args:
        blocks: key of ``BLOCKS`` -> rows.
        stem: path of the figures without their suffix.

    Returns:
        The paths of PNG and SVG.
    """
    shown = {
        key: [x for x in rows if BRIER1.name in x.estimates] for key, rows in blocks.items() if rows
    }
    names = list(dict.fromkeys(line.row for lines in shown.values() for line in lines))
    with style():
        from matplotlib.figure import Figure

        margin = max(2.4, _LETTER * max(map(len, names), default=0))
        size = (margin + 2.5 * len(shown), 1.9 + 0.27 * len(names))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, max(1, len(shown)), sharex=True, sharey=True, squeeze=False)[0]
        for axis, (key, lines) in zip(axes, shown.items(), strict=False):
            _panel(axis, lines, names)
            block = BLOCKS[key]
            title = f"{block.regime}: {block.title}".replace(", ", ",\n").replace(": ", ":\n")
            axis.set_title(title, loc="left", fontsize=9)
        axes[0].set_yticks(range(len(names)), names)
        leading = {line.row for lines in shown.values() for line in lines if _leads(line)}
        for label in axes[0].get_yticklabels():
            label.set_fontweight("bold" if label.get_text() in leading else "normal")
        axes[0].invert_yaxis()
        note = "Brier-1, higher is better (95 % intervals; dotted: the teacher)"
        figure.supxlabel(note, fontsize="medium")
        legend = {
            label: handle
            for axis in axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            legend.values(),
            legend.keys(),
            loc="outside upper right",
            ncols=min(4, 1 + len(shown)),
            frameon=False,
        )
        return save(figure, stem)


def _panel(axis: Axes, lines: Sequence[Line], names: Sequence[str]) -> None:
    headline = max((line.steps for line in lines if _leads(line)), default=1)
    for line in lines:
        own = line.estimates[BRIER1.name]
        value, lo, hi = own.value, own.lo, own.hi
        if line.role == "teacher":
            axis.axvline(value, color="black", linewidth=0.9, linestyle=":")
        few = _leads(line) and line.steps < headline
        axis.errorbar(
            value,
            names.index(line.row) + (0.18 if few else -0.18 if _leads(line) else 0),
            xerr=[[max(0.0, value - lo)], [max(0.0, hi - value)]],
            fmt="o",
            markersize=5 if _leads(line) else 4,
            color=_COLOURS[line.role],
            markerfacecolor="white" if few else None,
            linewidth=1.2,
            label=_ONE_STEP if few else _LABELS.get(line.role),
        )
    axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    bare(axis, "x")


def _leads(line: Line) -> bool:
    return line.role == "interface"
