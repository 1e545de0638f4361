"""Cross-fitted stiffness: the precision from one half of the documents, the pairs from the other.

In sample, with n < d and a small ridge, u' P u is 2 (n - 1) for *every* pair, so that the
stiffness is only an inverse squared distance. Here P knows nothing of the pair that it judges, and
the covariance is of every token that was run, not of the sampled ones alone. Documents with an
even number make the covariance, those with an odd number the pairs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dihal_bench.core import distributed
from dihal_bench.geometry.proxies import first_occurrences, sample_pairs
from dihal_bench.geometry.spectrum import scatter_quotients

if TYPE_CHECKING:
    from torch import Tensor

_ENOUGH = 10  # tokens of the covariance per dimension
_MEMORY = 2**32  # bytes of all layers' sums together: 32 layers of 4,096 dimensions


@dataclass(frozen=True, kw_only=True)
class CrossStiffness:
    """The cross-fitted stiffness of one layer's raw states.

    Attributes:
        layer: the number of blocks below the boundary.
        stiffness_cross: m, the median over the pairs (in 1 / activation units squared); None where
            one half of the documents has too few distinct tokens.
        n_sigma: tokens behind the covariance; its divisor is one less.
        enough: whether these are at least 10 per dimension.
    """

    layer: int
    stiffness_cross: float | None
    n_sigma: int
    enough: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


class Scatter:
    """Streamed S = sum of (x - mean)(x - mean)' over rows x, float64, centred block by block.

    Attributes:
        n: rows so far.
        mean: their mean, [d].
        products: S, [d, d].
    """

    def __init__(self, d: int, device: torch.device | str = "cpu"):
        self.n = 0
        self.mean = torch.zeros(d, dtype=torch.float64, device=device)
        self.products = torch.zeros(d, d, dtype=torch.float64, device=device)

    @property
    def varies(self) -> bool:
        """Whether rows differ by more than the rounding of their mean."""
        rounding = self.n * torch.finfo(self.mean.dtype).eps * self.mean
        return float(self.products.trace()) > self.n * float(rounding @ rounding)

    def add(self, rows: Tensor) -> None:
        """Add rows [m, d] of any floating dtype; those of another device are copied."""
        if len(rows):
            rows = rows.to(self.mean.device).double()
            mean = rows.mean(dim=0)
            rows = rows - mean
            self.products.addmm_(rows.mT, rows)
            self._move(len(rows), mean)

    def merge(self, other: Scatter) -> None:
        """Add the rows of another, of the same d."""
        if other.n:
            self.products += other.products
            self._move(other.n, other.mean)

    def add_others(self) -> None:
        """Add the rows of the other processes."""
        total = torch.tensor([float(self.n)], dtype=torch.float64, device=self.mean.device)
        mean = self.mean * self.n
        distributed.add_up(total, mean)
        if not float(total):
            return
        mean /= total
        shift = self.mean - mean
        self.products.addr_(shift, shift, alpha=self.n)
        distributed.add_up(self.products)
        self.mean, self.n = mean, int(total)

    def _move(self, m: int, mean: Tensor) -> None:
        """Account for the distance of the means when m rows with this mean are added."""
        shift, total = mean - self.mean, self.n + m
        self.products.addr_(shift, shift, alpha=self.n * m / total)
        self.mean += shift * (m / total)
        self.n = total


def covariance_half(documents: Tensor) -> Tensor:
    """Whether tokens of these documents make the covariance (True) or the pairs (False)."""
    return documents % 2 == 0


def crossed_layers(layers: list[int], d: int) -> list[int]:
    """The layers whose d x d sums fit into 4 GiB together: all of them, or evenly spaced ones."""
    most = max(1, _MEMORY // (8 * d * d))
    if len(layers) <= most:
        return layers
    places = np.linspace(0, len(layers) - 1, most).round().astype(int)
    return [layers[place] for place in np.unique(places)]


def cross_stiffness(
    layer: int, scatter: Scatter, states: Tensor, *, ridge: float, pairs: int, seed: int
) -> CrossStiffness:
    """Median Rayleigh quotient of one half's regularised precision over the other half's pairs.

    Args:
        layer: which layer, for the result.
        scatter: of the first half's tokens.
        states: sampled tokens of the other half, [n, d]; equal rows count once.
        ridge: rho, in units of the mean variance of the first half.
        pairs: how many pairs `sample_pairs` draws.
        seed: of the pairs.

    Raises:
        UserError: the regularised covariance is singular in float64.
    """
    d = states.shape[1]
    trace = float(scatter.products.trace())
    kept = first_occurrences(states) if len(states) else torch.empty(0, dtype=torch.int64)
    value = None
    if len(kept) >= 2 and scatter.n >= 2 and scatter.varies:
        points = states[kept].to(scatter.mean.device).double() - scatter.mean
        drawn = torch.from_numpy(sample_pairs(len(points), pairs, seed)).to(points.device)
        quotients = scatter_quotients(scatter.products, points, ridge * trace / d, drawn)
        value = float(quotients.quantile(0.5)) * (scatter.n - 1)
    return CrossStiffness(
        layer=layer,
        stiffness_cross=value,
        n_sigma=scatter.n,
        enough=scatter.n >= _ENOUGH * d,
    )
