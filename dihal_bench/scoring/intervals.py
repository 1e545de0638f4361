"""Bootstrap over documents: intervals of ratios of sums, and of paired differences of them."""

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
    """Resamples documents with replacement; all scores share the resamples: pairs stay paired."""

    def __init__(self, documents: int, *, resamples: int = 2000, seed: int = 0):
        generator = np.random.default_rng(seed)
        draws = generator.integers(0, documents, size=(resamples, documents))
        self._weights = np.apply_along_axis(np.bincount, 1, draws, minlength=documents).astype(
            np.float64
        )

    def ratio(self, numerator: Array, denominator: Array) -> Estimate:
        """Estimate sum(numerator) / sum(denominator); both are sums per document."""
        point = numerator.sum() / denominator.sum()
        return _with_interval(point, self._ratios(numerator, denominator))

    def difference(self, first: tuple[Array, Array], second: tuple[Array, Array]) -> Estimate:
        """Estimate the paired difference of two ratios of sums."""
        point = first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum()
        return _with_interval(point, self._ratios(*first) - self._ratios(*second))

    def _ratios(self, numerator: Array, denominator: Array) -> Array:
        below = self._weights @ denominator
        above = self._weights @ numerator
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _with_interval(point: float, resampled: Array) -> Estimate:
    lo, hi = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(float(point), float(lo), float(hi))
