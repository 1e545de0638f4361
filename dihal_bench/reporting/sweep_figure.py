"""Figures of a sweep: predictor and loss over depth, and one against the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.core.plotting import BLUE, GREEN, GREY, ORANGE, bare, save, style
from dihal_bench.studies.sweep.outcomes import DRAWN, SHORT, TITLES
from dihal_bench.studies.sweep.predictors import SCORE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dihal_bench.studies.sweep.replicate import Replicated
    from dihal_bench.studies.sweep.table import SweepTable

_PREDICTORS = {SCORE: (BLUE, "o"), f"{SCORE}, matched": (ORANGE, "s")}


def draw(table: SweepTable, stem: Path) -> list[Path]:
    """Draw a sweep over layers, as PNG and SVG of fixed bytes.

    Above: the score over depth, and the losses with every seed. Below: the score against each loss,
    candidates named.

    Args:
        table: of a sweep over layers.
        stem: path of the figures without their suffix.
    """
    with style():
        from matplotlib.figure import Figure

        losses = [name for name in table.outcomes.losses if name in DRAWN]
        figure = Figure(figsize=(3.3 * (1 + len(losses)), 6.4), layout="constrained")
        axes = figure.subplots(2, 1 + len(losses))
        _scores(axes[0, 0], table)
        _promise(axes[1, 0], table, losses)
        for column, name in enumerate(losses, start=1):
            _curve(axes[0, column], table, name)
            _scatter(axes[1, column], table, name)
        handles = [*axes[0, 0].get_lines(), *axes[0, 1].get_lines()]
        named = {h.get_label(): h for h in handles if not h.get_label().startswith("_")}
        figure.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=5, frameon=False
        )
        return save(figure, stem)


def _layers(table: SweepTable) -> list[int]:
    return [candidate.layer or 0 for candidate in table.outcomes.candidates]


def _scores(axis: Any, table: SweepTable) -> None:
    layers = _layers(table)
    for name, (colour, marker) in _PREDICTORS.items():
        own = table.predictions[name]
        lo, hi = np.percentile(own.draws, (2.5, 97.5), axis=0)
        axis.fill_between(layers, lo, hi, color=colour, alpha=0.18, linewidth=0)
        axis.plot(layers, own.values, color=colour, marker=marker, markersize=4.5, label=name)
        best = int(own.values.argmax())
        axis.plot(layers[best], own.values[best], **_ring(colour))
    axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axis.set_title("predicted: geometry score S", loc="left", fontweight="bold")
    _over_layers(axis, layers)


def _curve(axis: Any, table: SweepTable, name: str) -> None:
    layers, losses = _layers(table), table.outcomes.losses[name]
    for row in losses:
        axis.plot(layers, row, color=GREY, linewidth=0.8, alpha=0.7, label="loss of a seed")
    mean = losses.mean(0)
    label = "loss, mean over seeds"
    axis.plot(layers, mean, color="0.15", marker="o", markersize=4.5, label=label)
    best = int(mean.argmin())
    axis.plot(layers[best], mean[best], **_ring("0.15"), label="best")
    axis.set_title(TITLES[name], loc="left", fontweight="bold")
    _over_layers(axis, layers)


def _promise(axis: Any, table: SweepTable, losses: Sequence[str]) -> None:
    """How well each predictor ranks, for every loss: Kendall's tau with its interval."""
    names = [n for n, p in table.predictions.items() if p.orders and ", " not in n]
    ranked = {name: table.ranking[name] for name in losses if name in table.ranking}
    colours = dict(zip(ranked, ("0.15", GREEN, BLUE, ORANGE), strict=False))
    for shift, (loss, some) in enumerate(ranked.items()):
        for place, name in enumerate(names):
            own = some[name].kendall
            if own.value is None or own.lo is None or own.hi is None:
                continue
            y = len(names) - place - 0.2 * (shift - (len(ranked) - 1) / 2)
            label = SHORT[loss] if place == 0 else None
            axis.plot([own.lo, own.hi], [y, y], color=colours[loss], linewidth=1.4)
            axis.plot(own.value, y, "o", color=colours[loss], markersize=4, label=label)
    axis.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    axis.set_yticks(range(len(names), 0, -1), names)
    axis.set_xlim(-1.08, 1.08)
    axis.set_xlabel("Kendall τ with minus the loss")
    axis.set_title("who predicts it", loc="left", fontweight="bold")
    axis.legend(  # below: there is no corner that points may not fill
        frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2
    )
    bare(axis, "x")


def _scatter(axis: Any, table: SweepTable, name: str) -> None:
    layers, losses = _layers(table), table.outcomes.losses[name]
    own = table.predictions[SCORE]
    lo, hi = np.percentile(own.draws, (2.5, 97.5), axis=0)
    mean, low, high = losses.mean(0), losses.min(0), losses.max(0)
    axis.hlines(mean, lo, hi, color=BLUE, alpha=0.3)
    axis.vlines(own.values, low, high, color=BLUE, alpha=0.3)
    axis.plot(own.values, mean, "o", color=BLUE, markersize=5)
    for layer, x, y in zip(layers, own.values, mean, strict=True):
        axis.annotate(f" {layer}", (x, y), va="bottom", fontsize=8.5)
    found = table.ranking[name][SCORE].kendall.value if table.ranking else None
    tau = "undefined" if found is None else f"{found:+.2f}"
    axis.set_title(f"score against {SHORT[name]}: τ = {tau}", loc="left")
    axis.set_xlabel("score S (numbers: layers)")
    axis.set_ylabel(TITLES[name])
    bare(axis, "y")


def _over_layers(axis: Any, layers: list[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("layer (upper end of the replaced span)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(layers) <= 12:
        axis.set_xticks(layers)
    bare(axis, "y")


def _ring(colour: str) -> dict[str, Any]:
    return {
        "marker": "o",
        "markersize": 12,
        "markerfacecolor": "none",
        "markeredgecolor": colour,
        "markeredgewidth": 1.5,
        "linestyle": "none",
    }


def draw_replicated(rows: Sequence[Replicated], stem: Path) -> list[Path]:
    """Draw every statistic with one dot per backbone, a panel per loss, as PNG and SVG."""
    with style():
        from matplotlib.figure import Figure

        found = {row.outcome for row in rows}
        outcomes = [name for name in DRAWN if name in found]
        most = max(sum(row.outcome == name for row in rows) for name in outcomes)
        size = (4.4 * len(outcomes) + 1.2, 1.3 + 0.32 * most)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(outcomes), squeeze=False, sharex=True, sharey=True)[0]
        for axis, outcome in zip(axes, outcomes, strict=True):
            _dots(axis, [row for row in rows if row.outcome == outcome])
            axis.set_title(TITLES[outcome], loc="left", fontweight="bold")
        return save(figure, stem)


def _dots(axis: Any, rows: Sequence[Replicated]) -> None:
    for place, row in enumerate(rows):
        y = len(rows) - place
        known = [value for value in row.values.values() if value is not None]
        colour = ORANGE if row.test else BLUE
        axis.plot(known, [y] * len(known), "o", color=colour, alpha=0.5, markersize=5)
        if row.mean is not None:
            axis.plot(row.mean, y, "|", color="0.1", markersize=13, markeredgewidth=2)
        if row.test:
            axis.annotate(  # beside the panel: in it there may be dots
                f"p = {row.test.p:.3f}",
                (1.0, y),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axis.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    axis.set_yticks(range(len(rows), 0, -1), [row.statistic for row in rows])
    axis.set_ylim(0.4, len(rows) + 0.6)
    axis.set_xlabel("dot: a backbone; bar: mean; orange: tested")
    bare(axis, "x")
