"""Laws on a line: Gibbs measures, their Langevin dynamics, and the distance between two laws.

A law has a constant density in each of equal cells. Its distances are then exact, and its dynamics
are a Markov chain between neighbouring cells that is reversible for the Gibbs measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.stats import norm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Potential = Callable[[Array], Array]


@dataclass(frozen=True)
class LineLaw:
    """A law on an interval.

    Attributes:
        edges: of its cells, equally far apart, ascending, [m + 1].
        mass: in each cell; they sum to 1, [m].
    """

    edges: Array
    mass: Array

    @property
    def width(self) -> float:
        """Of a cell."""
        return float(self.edges[1] - self.edges[0])

    @property
    def mean(self) -> float:
        """The expectation."""
        return float(self.mass @ middles(self.edges))

    @property
    def variance(self) -> float:
        """The variance, that within the cells included."""
        return float(self.mass @ (middles(self.edges) - self.mean) ** 2 + self.width**2 / 12)

    def tail(self, radius: float) -> float:
        """Probability of being farther than ``radius`` from the mean."""
        below = np.interp(
            [self.mean - radius, self.mean + radius], self.edges, np.r_[0, np.cumsum(self.mass)]
        )
        return float(1 - (below[1] - below[0]))


def middles(edges: Array) -> Array:
    """Return the middles of cells, [m] from [m + 1]."""
    return (edges[1:] + edges[:-1]) / 2


def gibbs(potential: Potential, edges: Array) -> LineLaw:
    """Return the law whose density is proportional to exp(-U)."""
    energy = potential(middles(edges))
    weight = np.exp(energy.min() - energy)
    return LineLaw(edges, weight / weight.sum())


def gaussian(mean: float, deviation: float, edges: Array) -> LineLaw:
    """Return a Gaussian, less what lies outside the cells."""
    mass: Array = np.diff(norm.cdf(edges, mean, deviation))
    return LineLaw(edges, mass / mass.sum())


def langevin(potential: Potential, start: LineLaw, t: float) -> LineLaw:
    """Return the law at time t of dX = -U'(X) dt + sqrt(2) dW, reflected at the ends.

    Args:
        potential: U.
        start: the law at time 0.
        t: time.
    """
    energy = potential(middles(start.edges))
    root = np.exp((energy.min() - energy) / 2)  # of the density that is left alone
    rate = 1 / start.width**2
    up, down = root[1:] / root[:-1] * rate, root[:-1] / root[1:] * rate
    diagonal = -np.r_[up, 0.0] - np.r_[0.0, down]
    values, vectors = eigh_tridiagonal(diagonal, np.full(len(up), rate))
    mass = root * (vectors @ (np.exp(values * t) * (vectors.T @ (start.mass / root))))
    mass = np.clip(mass, 0, None)
    return LineLaw(start.edges, mass / mass.sum())


def wasserstein(a: LineLaw, b: LineLaw) -> float:
    """Return the 2-Wasserstein distance of two laws: that of their quantile functions."""
    levels = np.unique(np.r_[np.cumsum(a.mass), np.cumsum(b.mass), 0.0])
    levels = levels[levels <= 1]
    difference = _quantiles(a, levels) - _quantiles(b, levels)
    low, high = difference[:-1], difference[1:]
    return float(np.sqrt(np.diff(levels) @ (low * low + low * high + high * high) / 3))


def _quantiles(law: LineLaw, levels: Array) -> Array:
    kept = law.mass > np.finfo(np.float64).eps  # others have no level of their own
    below = np.r_[0, np.cumsum(law.mass[kept])]
    left, right = law.edges[:-1][kept], law.edges[1:][kept]
    return np.interp(levels, below, np.r_[left[0], right])
