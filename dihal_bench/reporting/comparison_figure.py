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

    from dihal_bench.results.table import TableRow

_COLOURS = {"interface": BLUE, "control": GREY, "trial": ORANGE, "teacher": "black"}
_LABELS = {
    "interface": "interface, all its steps",
    "control": "control without diffusion",
    "trial": "interface, its signal withheld",
}
_ONE_STEP = "interface, one step"

_LETTER = 0.075  # inches that a letter of a row's name takes


def draw(blocks: Mapping[str, Sequence[TableRow]], stem: Path) -> list[Path]:
    """Draw Brier-1 with its interval, the one score that all rows have in common.

    Args:
        blocks: key of ``BLOCKS`` -> rows.
        stem: path of the figures without their suffix.

    Returns:
        The paths of PNG and SVG.
    """
    shown = {
        key: [x for x in rows if x.cells.get(BRIER1.name)] for key, rows in blocks.items() if rows
    }
    names = list(dict.fromkeys(row.value("row") for rows in shown.values() for row in rows))
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
        leading = {row.value("row") for rows in shown.values() for row in rows if _leads(row)}
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


def _panel(axis: Axes, rows: Sequence[TableRow], names: Sequence[str]) -> None:
    headline = max((row.value("steps") for row in rows if _leads(row)), default=1)
    for row in rows:
        role = row.value("role")
        value, lo, hi = (getattr(row.cells[BRIER1.name], end) for end in ("value", "lo", "hi"))
        if role == "teacher":
            axis.axvline(value, color="black", linewidth=0.9, linestyle=":")
        few = _leads(row) and row.value("steps") < headline
        axis.errorbar(
            value,
            names.index(row.value("row")) + (0.18 if few else -0.18 if _leads(row) else 0),
            xerr=[[max(0.0, value - lo)], [max(0.0, hi - value)]],
            fmt="o",
            markersize=5 if _leads(row) else 4,
            color=_COLOURS[role],
            markerfacecolor="white" if few else None,
            linewidth=1.2,
            label=_ONE_STEP if few else _LABELS.get(role),
        )
    axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    bare(axis, "x")


def _leads(row: TableRow) -> bool:
    return bool(row.value("role") == "interface")
