"""The frontier: generative perplexity against entropy, as the temperature goes through a range.

One temperature compares nothing: whoever samples colder has the lower perplexity (Pynadath, Shi and
Zhang, arXiv 2604.02718). So rows are compared at the entropy that real text has, by interpolation,
and not at all where their range does not reach it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.core import plotting
from dihal_bench.evaluation.intervals import holding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.evaluation.intervals import Array, DocumentBootstrap
    from dihal_bench.results.table import Estimate

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
_PERCENTILES = (2.5, 97.5)

Place = tuple[float, float]  # entropy in nats, generative perplexity


@dataclass(frozen=True)
class Point:
    """A row at one temperature.

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


@dataclass(frozen=True)
class Swept:
    """A row's samples at one temperature, drawn with the same noise at all of them.

    Attributes:
        temperature: of the tokens.
        entropy: of every sample, nats, [n].
        nll: sums of the judge's over every sample, [n].
        tokens: that it scored, [n].
    """

    temperature: float
    entropy: Array
    nll: Array
    tokens: Array

    def point(self, row: str) -> Point:
        """Return the means over all samples."""
        perplexity = float(np.exp(self.nll.sum() / self.tokens.sum()))
        return Point(row, self.temperature, float(self.entropy.mean()), perplexity)


def at_entropy(
    sweep: Sequence[Swept], entropy: float, bootstrap: DocumentBootstrap
) -> Estimate | None:
    """Return the generative perplexity of a row at an entropy; None outside its range.

    Its logarithm is interpolated linearly between the two neighbouring points. Where the curve
    passes the entropy more than once, the largest perplexity counts. The interval is over samples,
    resampled together at all temperatures; resamples whose curve does not reach the entropy are
    left out.

    Args:
        sweep: of one row, in any order.
        entropy: nats, taken as known.
        bootstrap: resamples of the samples.
    """
    ordered = sorted(sweep, key=lambda own: own.temperature)
    value = _cross(
        np.array([[own.entropy.mean()] for own in ordered]),
        np.array([[own.nll.sum() / own.tokens.sum()] for own in ordered]),
        entropy,
    )[0]
    if np.isnan(value):
        return None
    resampled = _cross(
        np.stack([bootstrap.resampled(o.entropy, np.ones_like(o.entropy)) for o in ordered]),
        np.stack([bootstrap.resampled(o.nll, o.tokens) for o in ordered]),
        entropy,
    )
    reached = resampled[np.isfinite(resampled)]
    lo, hi = np.percentile(reached, _PERCENTILES) if len(reached) else (value, value)
    return holding(float(np.exp(value)), float(np.exp(lo)), float(np.exp(hi)))


def curve_at(entropies: Sequence[float], perplexities: Sequence[float], entropy: float) -> float:
    """Return the generative perplexity where a curve of points passes an entropy; NaN: nowhere.

    Interpolated as in ``at_entropy``.

    Args:
        entropies: of the points, in the order of their temperatures, nats.
        perplexities: of the same points.
        entropy: nats.
    """
    points = np.array([entropies, np.log(perplexities)], dtype=np.float64)[..., None]
    return float(np.exp(_cross(points[0], points[1], entropy)[0]))


def under(curve: Iterable[Sequence[float]], points: Mapping[str, Place]) -> dict[str, float]:
    """Return the points under a curve, the lowest first: each one's share of its perplexity there.

    Args:
        curve: entropy in nats and generative perplexity, in the order of temperatures.
        points: name -> the same two.
    """
    entropies, perplexities = zip(*curve, strict=True)
    shares = {
        name: perplexity / curve_at(entropies, perplexities, entropy)
        for name, (entropy, perplexity) in points.items()
    }
    below = [name for name, share in shares.items() if share < 1]  # NaN, beyond its ends, is not
    return {name: shares[name] for name in sorted(below, key=lambda name: shares[name])}


def _cross(entropies: Array, nlls: Array, entropy: float) -> Array:
    """Return the largest NLL at which curves [points, R] pass an entropy, [R]; NaN where none."""
    found = np.full(entropies.shape[1], np.nan)
    for (low, high), (first, second) in zip(pairwise(entropies), pairwise(nlls), strict=True):
        between = (np.minimum(low, high) <= entropy) & (entropy <= np.maximum(low, high))
        width = np.where(high == low, 1.0, high - low)
        here = first + (entropy - low) / width * (second - first)
        found = np.where(between, np.fmax(found, here), found)
    return found


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
