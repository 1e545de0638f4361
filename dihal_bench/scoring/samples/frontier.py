"""The frontier: generative perplexity against entropy, as the temperature goes through a range.

One temperature compares nothing: whoever samples colder has the lower perplexity (Pynadath, Shi and
Zhang, arXiv 2604.02718). So rows are compared at the entropy that real text has, by interpolation,
and not at all where their range does not reach it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from dihal_bench import plotting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)


@dataclass(frozen=True)
class Point:
    """A row at one temperature (and number of steps).

    Attributes:
        row: its name.
        temperature: of the tokens.
        entropy: nats per sample.
        gen_ppl: generative perplexity.
    """

    row: str
    temperature: float
    entropy: float
    gen_ppl: float


def at_entropy(points: Sequence[Point], entropy: float) -> float | None:
    """Return the generative perplexity of a row at an entropy; None outside its range.

    Its logarithm is interpolated linearly between the two neighbouring points. Where the curve
    passes the entropy more than once, the largest perplexity counts.

    Args:
        points: of one row, in any order.
        entropy: nats.
    """
    ordered = sorted(points, key=lambda point: point.temperature)
    found = []
    for one, other in pairwise(ordered):
        low, high = one.entropy, other.entropy
        if min(low, high) <= entropy <= max(low, high):
            share = 0.0 if low == high else (entropy - low) / (high - low)
            logs = math.log(one.gen_ppl), math.log(other.gen_ppl)
            found.append(math.exp(logs[0] + share * (logs[1] - logs[0])))
    return max(found) if found else None


def draw(points: Sequence[Point], data: tuple[float, float], path: Path, title: str) -> list[Path]:
    """Draw one curve per row and the point of real text; return the paths of a PNG and an SVG.

    Args:
        points: of all rows.
        data: entropy and generative perplexity of real text.
        path: of the files, without a suffix.
        title: of the figure.
    """
    from matplotlib.figure import Figure

    with plotting.style():
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for row, own in _by_row(points).items():
            ordered = sorted(own, key=lambda point: point.temperature)
            entropy = [point.entropy for point in ordered]
            perplexity = [point.gen_ppl for point in ordered]
            axes.plot(entropy, perplexity, marker="o", markersize=4, label=row)
            for point in ordered if row == points[0].row else ():  # of one row: they lie together
                axes.annotate(
                    f"T={point.temperature:g}",
                    (point.entropy, point.gen_ppl),
                    textcoords="offset points",
                    xytext=(5, -9),
                    fontsize=7,
                )
        axes.plot(
            *data, marker="*", markersize=13, linestyle="none", color="black", label="real text"
        )
        axes.axvline(data[0], color="black", linewidth=0.6, linestyle=":")
        axes.set_yscale("log")
        axes.set_xlabel("entropy of a sample's tokens, nats")
        axes.set_ylabel("generative perplexity")
        axes.set_title(title)
        axes.legend(frameon=False)
        plotting.bare(axes, "y")
        return plotting.save(figure, path)


def _by_row(points: Sequence[Point]) -> Mapping[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.row, []).append(point)
    return found
