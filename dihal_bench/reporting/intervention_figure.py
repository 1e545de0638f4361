"""Figure of changes of coordinates."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

from dihal_bench.core.plotting import BLUE, GREY, ORANGE, bare, save, style
from dihal_bench.studies.sweep.intervention import VIEWS
from dihal_bench.studies.sweep.outcomes import DRAWN, SHORT
from dihal_bench.studies.sweep.plan import IDENTITY

if TYPE_CHECKING:
    from pathlib import Path

    from dihal_bench.studies.sweep.intervention import Intervention


def draw(change: Intervention, stem: Path) -> list[Path]:
    """Draw each loss against the score within layers, as PNG and SVG of fixed bytes.

    A line per layer joins its transforms in order of the score; a loss is shown relative to the
    layer's mean, since layers differ in more than geometry.
    """
    with style():
        from matplotlib.figure import Figure

        losses = [name for name in change.losses if name in DRAWN]
        figure = Figure(figsize=(3.8 * len(losses), 3.6 * len(VIEWS)), layout="constrained")
        axes = figure.subplots(len(VIEWS), len(losses), squeeze=False)
        for row, view in enumerate(VIEWS):
            for column, loss in enumerate(losses):
                _panel(axes[row, column], change, view, loss)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
        return save(figure, stem)


def _panel(axis: Any, change: Intervention, view: str, loss: str) -> None:
    scores, mean = change.geometry.scores[view], change.losses[loss].mean(0)  # [layers, transforms]
    relative = mean / mean.mean(1, keepdims=True) - 1
    for own, values in zip(scores, relative, strict=True):
        order = own.argsort(kind="stable")
        axis.plot(own[order], 100 * values[order], color=GREY, linewidth=0.7, alpha=0.6)
    styles = zip(change.geometry.transforms, cycle("os^DvPX*"), scores.T, relative.T, strict=False)
    for name, marker, x, y in styles:
        colour = ORANGE if name == IDENTITY else BLUE
        axis.plot(x, 100 * y, marker, markersize=5, color=colour, alpha=0.85, label=name)
    tau = change.tau[view][loss].value
    shown = "undefined" if tau is None else f"{tau:+.2f}"
    axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axis.set_title(f"{SHORT[loss]}, {view} score: τ = {shown}", loc="left")
    axis.set_xlabel("score S over the transforms of a layer")
    axis.set_ylabel("loss against the layer's mean, %")
    bare(axis, "y")
