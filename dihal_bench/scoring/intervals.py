"""Intervals of ratios of sums: bootstrap over documents, and over trainings if there are several.

All scores share the resamples, so that differences between rows stay paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % percentile interval."""

    value: float
    lo: float
    hi: float


class DocumentBootstrap:
    """Resamples trainings and documents with replacement, crossed.

    Every training is scored on the same documents, so a resample draws trainings, and documents for
    all of them at once: drawn anew for each training, documents would seem to differ less than they
    do.
    """

    def __init__(self, documents: int, *, trainings: int = 1, resamples: int = 2000, seed: int = 0):
        generator = np.random.default_rng(seed)
        self._weights = _counts(generator, resamples, documents)  # (R, documents)
        self._trainings = _counts(generator, resamples, trainings)  # (R, trainings)

    def ratio(self, numerator: Array, denominator: Array) -> Estimate:
        """Estimate sum(numerator) / sum(denominator), of sums [(trainings,) documents]."""
        point = numerator.sum() / denominator.sum()
        return _with_interval(point, self._ratios(numerator, denominator))

    def difference(self, first: tuple[Array, Array], second: tuple[Array, Array]) -> Estimate:
        """Estimate the paired difference of two ratios of sums."""
        point = first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum()
        return _with_interval(point, self._ratios(*first) - self._ratios(*second))

    def _ratios(self, numerator: Array, denominator: Array) -> Array:
        below, above = self._sum(denominator), self._sum(numerator)
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

    def _sum(self, sums: Array) -> Array:
        """Return the resampled totals [R] of sums per (training and) document."""
        rows = np.atleast_2d(sums)
        if len(rows) == 1:  # of something that is the same in every training, or of one alone
            once: Array = self._weights @ rows[0]
            return once * len(self._trainings[0])
        total: Array = (self._trainings * (self._weights @ rows.T)).sum(1)
        return total


def _counts(generator: np.random.Generator, resamples: int, size: int) -> Array:
    draws = generator.integers(0, size, size=(resamples, size))
    return np.apply_along_axis(np.bincount, 1, draws, minlength=size).astype(np.float64)


def _with_interval(point: float, resampled: Array) -> Estimate:
    lo, hi = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(float(point), float(lo), float(hi))
