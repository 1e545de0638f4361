"""Intervals of ratios of sums: over documents, and over trainings if there are several.

All scores share the resamples, so that differences between rows stay paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from dihal_bench.results.table import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float64]
_LEVEL = 0.95
_PERCENTILES = (50 * (1 - _LEVEL), 50 * (1 + _LEVEL))


def holding(point: float, lo: float, hi: float) -> Estimate:
    """Return an estimate whose percentiles are widened where they leave the point itself out."""
    return Estimate(point, min(float(lo), point), max(float(hi), point))


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums and what it might have been.

    Attributes:
        point: the ratio.
        resampled: in every resample of documents, [R].
        trainings: in every training, [n].
    """

    point: float
    resampled: Array
    trainings: Array

    def __sub__(self, other: Ratio) -> Ratio:
        """Return the paired difference."""
        return Ratio(
            self.point - other.point,
            self.resampled - other.resampled,
            self.trainings - other.trainings,
        )


class DocumentBootstrap:
    """Resamples documents with replacement; what trainings differ by is added to that.

    Every training is scored on the same documents, so the two are crossed: a mean over n trainings
    has the variance of documents, of which a resample draws the same for all of them, plus that of
    trainings over n. Of few trainings a bootstrap would see too little (of three, its interval is
    at most their range, which covers three times in four); so the interval is Student's, with the
    degrees of freedom of such a sum (Satterthwaite, 1946): of three it covers 93 to 95 % in
    simulation, of two as little as 83 % where they differ by more than documents do. One training
    alone has the percentiles of the resamples, and says nothing of others.
    """

    def __init__(self, documents: int, *, resamples: int = 2000, seed: int = 0):
        generator = np.random.default_rng(seed)
        self._weights = _counts(generator, resamples, documents)  # (R, documents)
        self._known: dict[bytes, Array] = {}

    def of(self, numerator: Array, denominator: Array) -> Ratio:
        """Return sum(numerator) / sum(denominator), of sums [(trainings,) documents]."""
        above, below = np.atleast_2d(numerator), np.atleast_2d(denominator)
        return Ratio(
            float(_ratio(above.sum(), below.sum())),
            self.resampled(above.sum(0), below.sum(0)),
            _ratio(above.sum(1), below.sum(1)),
        )

    def estimate(self, ratio: Ratio) -> Estimate:
        """Return a ratio, or the difference of two, with its interval."""
        return _with_interval(
            point=ratio.point,
            resampled=ratio.resampled,
            trainings=ratio.trainings,
            documents=self._weights.shape[1],
        )

    def estimate_apart(self, first: Ratio, second: Ratio) -> Estimate:
        """Return a difference that is paired over documents alone: no training is of both.

        Each of the two needs two trainings or more.
        """
        point = first.point - second.point
        within = float(np.var(first.resampled - second.resampled, ddof=1))
        parts = [
            (float(np.var(own.trainings, ddof=1)) / len(own.trainings), len(own.trainings) - 1)
            for own in (first, second)
        ]
        both = within + sum(between for between, _ in parts)
        if not both:
            return Estimate(point, point, point)
        freedom = both**2 / (
            within**2 / max(1, self._weights.shape[1] - 1)
            + sum(between**2 / free for between, free in parts)
        )
        half = float(special.stdtrit(freedom, (1 + _LEVEL) / 2)) * both**0.5
        return Estimate(point, point - half, point + half)

    def ratio(self, numerator: Array, denominator: Array) -> Estimate:
        """Estimate sum(numerator) / sum(denominator), of sums [(trainings,) documents]."""
        return self.estimate(self.of(numerator, denominator))

    def resampled(self, numerator: Array, denominator: Array) -> Array:
        """Return the ratio in every resample, [R], of sums [documents]."""
        return _ratio(self._weights @ numerator, self._drawn(denominator))

    def difference(self, first: tuple[Array, Array], second: tuple[Array, Array]) -> Estimate:
        """Estimate the paired difference of two ratios of sums."""
        return self.estimate(self.of(*first) - self.of(*second))

    def _drawn(self, denominator: Array) -> Array:
        """Return a denominator's resamples; nearly all ratios have one of a few."""
        key = denominator.tobytes()
        if key not in self._known:
            self._known[key] = self._weights @ denominator
        return self._known[key]

    def surely_above(self, terms: Sequence[Ratio]) -> NDArray[np.bool_]:
        """Return for all pairs whether the first ratio minus the second has its interval above 0.

        The intervals are those of ``difference``, of all pairs at once.

        Args:
            terms: of the same trainings.

        Returns:
            [terms, terms].
        """
        trainings = np.stack([term.trainings for term in terms])
        resampled = np.stack([term.resampled for term in terms])
        points = np.array([term.point for term in terms])
        count = trainings.shape[1]
        within = _variances(resampled)
        between = _variances(trainings) / count if count > 1 else np.zeros_like(within)
        half = _half(within, between, count, len(self._weights[0]))
        found: NDArray[np.bool_] = np.subtract.outer(points, points) - half > 0
        kept = resampled[:, np.isfinite(resampled).all(0)]  # a resample of nothing is one for all
        for i, alike in enumerate(between <= 0):  # these have the percentiles of the resamples
            others = np.flatnonzero(alike)
            lows = np.percentile(kept[i] - kept[others], _PERCENTILES[0], axis=1)
            found[i, others] = lows > 0
        return found


def over_trainings(values: Array) -> tuple[Array, Array] | None:
    """Return Student's 95 % interval of the mean of trainings [n, ...]; None: there is but one."""
    count = len(values)
    if count < 2:
        return None
    reach = special.stdtrit(count - 1, (1 + _LEVEL) / 2) / np.sqrt(count)
    power = np.frexp(np.abs(values).max(0))[1]  # squares of what is large are no numbers
    scaled = np.ldexp(values, -power)
    mean, half = scaled.mean(0), reach * scaled.std(0, ddof=1)
    return np.ldexp(mean - half, power), np.ldexp(mean + half, power)


def _ratio(above: Array, below: Array) -> Array:
    out = np.full(np.shape(above), np.nan)
    ratios: Array = np.divide(above, below, out=out, where=np.asarray(below > 0))
    return ratios


def _counts(generator: np.random.Generator, resamples: int, size: int) -> Array:
    draws = generator.integers(0, size, size=(resamples, size))
    return np.apply_along_axis(np.bincount, 1, draws, minlength=size).astype(np.float64)


def _with_interval(*, point: float, resampled: Array, trainings: Array, documents: int) -> Estimate:
    """Return the interval around ``point``.

    Args:
        point: the estimate.
        resampled: estimates of resampled documents, [R].
        trainings: estimates of single trainings, [n].
        documents: how many there are.
    """
    count = len(trainings)
    between = float(np.var(trainings, ddof=1)) / count if count > 1 else 0.0
    if not between:
        kept = resampled[np.isfinite(resampled)]
        return holding(point, *np.percentile(kept, _PERCENTILES))
    within = float(np.var(resampled[np.isfinite(resampled)], ddof=1))
    half = float(_half(np.array(within), np.array(between), count, documents))
    return Estimate(point, point - half, point + half)


def _half(within: Array, between: Array, trainings: int, documents: int) -> Array:
    """Return half the width of intervals, from the variances of documents and of trainings."""
    both = within + between
    spread = within**2 / max(1, documents - 1) + between**2 / max(1, trainings - 1)
    out = np.ones_like(both)
    freedom = np.divide(both**2, spread, out=out, where=spread > 0)
    half: Array = special.stdtrit(freedom, (1 + _LEVEL) / 2) * np.sqrt(both)
    return half


def _variances(values: Array) -> Array:
    """Return the variance of the differences of all pairs of rows [k, n]: [k, k]."""
    differences: Array = np.array([np.var(values - one, axis=1, ddof=1) for one in values])
    return differences
