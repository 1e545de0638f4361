"""Locate, part one: three geometric proxies of a layer from a sample of its activations.

DiHAL, Section 3.2 (arXiv 2605.14368). All arithmetic is float64, and the data are centred before
any product is formed: neither a common offset nor TF32 can cost digits. With n < d everything
follows from the n x n Gram matrix, otherwise from the d x d covariance; of neither is more than
the largest eigenvalue computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.geometry.neighbourhoods import chunk_size, local_variances
from dihal_bench.geometry.spectrum import (
    gram_quotients,
    largest_eigenvalue,
    scatter_quotients,
    self_product,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_GRAM_ROWS = 4096  # up to this many points the Gram matrix is kept also when n >= d: 128 MiB


@dataclass(frozen=True, kw_only=True)
class LayerProxies:
    """The three proxies of one layer, and what they were computed from.

    Attributes:
        curvature: kappa, the median over points of 1 / lambda_max of the covariance of its
            neighbours (in 1 / activation units squared).
        stiffness: m, the median over pairs of the Rayleigh quotient of the regularised precision
            (in 1 / activation units squared).
        effective_rank: r = tr(Sigma) / lambda_max(Sigma), at least 1. Others call this the
            intrinsic dimension or stable rank; it is not the exponential of the spectrum's entropy.
        participation_ratio: tr(Sigma)^2 / tr(Sigma^2), at least `effective_rank`. Where the two are
            far apart, one direction (a massive activation) alone decides `effective_rank`.
        duplicates: rows removed because they equal an earlier row.
        n: distinct rows that were used; the divisor of Sigma is n - 1 of these.
        d: dimensions, constant ones included.
    """

    curvature: float
    stiffness: float
    effective_rank: float
    participation_ratio: float
    duplicates: int
    n: int
    d: int

    @property
    def in_sample(self) -> bool:
        """Whether n < 2 d, so that the stiffness says little more than the points' distances.

        Without a ridge u' Sigma^+ u is 2 (n - 1) for *every* pair when n <= d; a precision from
        other documents with n >= 10 d is the better estimate. Who prints the stiffness should warn.
        """
        return self.n < 2 * self.d


def layer_proxies(
    activations: Tensor | NDArray[np.generic],
    *,
    neighbours: int = 20,
    ridge: float = 1e-3,
    pairs: int = 5000,
    seed: int = 0,
) -> LayerProxies:
    """Curvature, stiffness and effective rank of one layer (DiHAL, Section 3.2).

    Exactly equal rows are reduced to their first occurrence: they would make the curvature infinite
    and a pair's quotient 0 / 0. Rows that are only nearly equal stay: their neighbourhoods have a
    tiny but positive lambda_max, and move the median only as far as they are many. A constant
    dimension adds nothing but its count to d, the ridge's divisor. Of neighbours at exactly the
    same distance those in lower rows are taken.

    Args:
        activations: H, [n, d], a row per token, of any floating dtype, on any device with float64.
        neighbours: k, the size of a neighbourhood; the point itself is not in it.
        ridge: rho in P = (Sigma + rho tr(Sigma) / d I)^-1.
        pairs: how many pairs (i, j) of distinct rows `sample_pairs` draws for the stiffness.
        seed: of the pairs; nothing else in the result is random.

    Returns:
        The proxies, with a relative error below 1e-4 (commonly 1e-9).

    Raises:
        UserError: If the activations are not a finite matrix, fewer than k + 2 rows are distinct,
            or a setting is out of range.
    """
    _check_settings(neighbours=neighbours, ridge=ridge, pairs=pairs)
    own = Moments.of(activations, neighbours=neighbours)
    return moments_proxies(own, neighbours=neighbours, ridge=ridge, pairs=pairs, seed=seed)


def moments_proxies(
    own: Moments, *, neighbours: int, ridge: float, pairs: int, seed: int
) -> LayerProxies:
    """`layer_proxies` of a matrix that was taken apart already.

    Raises:
        UserError: a setting is out of range, or the covariance is singular.
    """
    _check_settings(neighbours=neighbours, ridge=ridge, pairs=pairs)
    curvature = 1 / local_variances(own.points, own.centred, own.gram, neighbours, own.scale)
    return LayerProxies(
        curvature=median(curvature),
        stiffness=own.stiffness(ridge, own.pairs(pairs, seed)),
        effective_rank=own.trace / largest_eigenvalue(own.scatter),
        participation_ratio=own.participation_ratio,
        duplicates=own.duplicates,
        n=own.n,
        d=own.d,
    )


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Distinct points and their second moments, of which everything else is made.

    Attributes:
        points: distinct rows as given, float64, [n, d].
        centred: less their mean, [n, d].
        scatter: X X' where n < d, else X' X: n - 1 times the covariance's spectrum.
        gram: X X', [n, n], where it is at hand or small; None: it is not kept.
        trace: of the scatter.
        duplicates: rows removed because they equal an earlier row.
        scale: squared norms of which the rounding of ``gram`` is a fraction, [n]; None: those on
            its diagonal.
        place: where the r-th of the given rows is among the points, [n]; None: they are in order.
    """

    points: Tensor
    centred: Tensor
    scatter: Tensor
    gram: Tensor | None
    trace: float
    duplicates: int
    scale: Tensor | None = None
    place: Tensor | None = None

    @classmethod
    def of(cls, activations: Tensor | NDArray[np.generic], *, neighbours: int) -> Moments:
        """Take a matrix apart.

        Args:
            activations: a row per token, [rows, d].
            neighbours: the largest neighbourhood that will be asked for.

        Raises:
            UserError: as ``layer_proxies``.
        """
        rows = as_matrix(activations)
        kept = first_occurrences(rows)
        duplicates = len(rows) - len(kept)
        check_enough(len(kept), duplicates, neighbours)
        return cls.of_distinct(rows[kept] if duplicates else rows, duplicates)

    @classmethod
    def of_distinct(
        cls,
        rows: Tensor,
        duplicates: int,
        gram: Tensor | None = None,
        scale: Tensor | None = None,
        place: Tensor | None = None,
    ) -> Moments:
        """Take distinct rows apart; what is known already is not computed.

        Args:
            rows: [n, d].
            duplicates: how many others were equal to one of these.
            gram: their inner products, [n, n]; with n < d about their mean.
            scale: of the rounding of ``gram``, [n].
            place: as the attribute.

        Raises:
            UserError: they are not finite, or all but equal to zero.
        """
        points = rows.double()
        n, d = points.shape
        centred = points - finite_mean(points)
        if n >= d:
            scatter = self_product(centred.mT)
            gram = self_product(centred) if gram is None and n <= _GRAM_ROWS else gram
        else:
            scatter = gram = self_product(centred) if gram is None else gram
        return cls(
            points=points,
            centred=centred,
            scatter=scatter,
            gram=gram,
            trace=total_of(scatter),
            duplicates=duplicates,
            scale=scale,
            place=place,
        )

    @property
    def n(self) -> int:
        """How many distinct points there are."""
        return len(self.points)

    @property
    def d(self) -> int:
        """Dimensions, constant ones included."""
        return self.points.shape[1]

    @property
    def participation_ratio(self) -> float:
        """tr(Sigma)^2 / tr(Sigma^2)."""
        return (self.trace / float(torch.linalg.vector_norm(self.scatter))) ** 2

    def pairs(self, count: int, seed: int) -> Tensor:
        """Draw pairs of the given rows, as places among the points, [pairs, 2]."""
        drawn = torch.from_numpy(sample_pairs(self.n, count, seed)).to(self.points.device)
        return drawn if self.place is None else self.place[drawn]

    def stiffness(self, ridge: float, drawn: Tensor) -> float:
        """Return m: the median over pairs [pairs, 2] of the precision's Rayleigh quotient."""
        epsilon = ridge * self.trace / self.d
        return median(_quotients(self.centred, self.scatter, epsilon, drawn)) * (self.n - 1)


def sample_pairs(n: int, pairs: int, seed: int) -> NDArray[np.int64]:
    """Draw ordered pairs (i, j), i != j, uniformly and with replacement.

    Args:
        n: points to draw from, at least 2.
        pairs: pairs to draw.
        seed: of NumPy's default generator, so that a seed means the same pairs on every device.

    Returns:
        Indices, [pairs, 2].
    """
    generator = np.random.default_rng(seed)
    first = generator.integers(n, size=pairs)
    second = (first + generator.integers(1, n, size=pairs)) % n
    return np.stack([first, second], axis=1)


def _check_settings(*, neighbours: int, ridge: float, pairs: int) -> None:
    if neighbours < 2:
        raise UserError(f"neighbours={neighbours} has no covariance; choose at least 2.")
    if not 0 < ridge < float("inf"):
        raise UserError(
            f"ridge={ridge} does not regularise the precision; choose a positive number."
        )
    if pairs < 1:
        raise UserError(f"pairs={pairs} leaves nothing to take the median of; choose at least 1.")


def check_enough(distinct: int, duplicates: int, neighbours: int) -> None:
    """Refuse a sample in which a neighbourhood would not be a choice."""
    if distinct <= neighbours + 1:
        raise UserError(
            f"Only {distinct} of {distinct + duplicates} activations are distinct, but "
            f"neighbours={neighbours} needs at least {neighbours + 2}; sample more tokens."
        )


def as_matrix(activations: Tensor | NDArray[np.generic]) -> Tensor:
    """The activations as a detached floating matrix, [rows, d], in their own precision."""
    if isinstance(activations, np.ndarray):
        activations = torch.from_numpy(np.require(activations, requirements=["C", "W"]))
    rows = activations.detach()
    if rows.ndim != 2 or 0 in rows.shape:
        raise UserError(
            f"Activations have shape {tuple(rows.shape)}; give a matrix [tokens, dimensions]."
        )
    return rows if rows.is_floating_point() else rows.double()


def finite_mean(points: Tensor) -> Tensor:
    """The mean, [d], which one NaN or infinity anywhere would reach."""
    mean = points.mean(dim=0)
    if not torch.isfinite(mean).all():
        broken = int((~torch.isfinite(points)).any(dim=1).sum())
        raise UserError(
            f"{broken} of {len(points)} activations hold a NaN or an infinity; "
            "run the backbone in bfloat16 or float32, or leave those tokens out."
        )
    return mean


def first_occurrences(rows: Tensor) -> Tensor:
    """Indices of the rows that equal no earlier row, ascending."""
    return (first_equal(rows) == torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]


def first_equal(rows: Tensor) -> Tensor:
    """For every row the index of the first row that equals it, [n]; often its own.

    Rows meet through integer hashes: unlike a sum of floats, one does not depend on the order of
    summation, so equal rows have equal hashes. Rows are taken as equal only where they really are.
    """
    words = (rows + 0.0).contiguous()  # -0.0 + 0.0 is 0.0: equal numbers get equal bits
    words = words.view(torch.int16 if rows.element_size() == 2 else torch.int32)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=generator).to(rows.device)
    blocks = torch.split(words, chunk_size(words.shape[1]))
    hashes = torch.cat([(block.long() * weights).sum(dim=1) for block in blocks])
    _, group = torch.unique(hashes, return_inverse=True)
    index = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(index, len(rows)).scatter_reduce(0, group, index, "amin")[group]
    later = (first < index).nonzero()[:, 0]
    unequal = later[(rows[later] != rows[first[later]]).any(dim=1)]
    first[unequal] = unequal
    return first


def total_of(scatter: Tensor) -> float:
    """The trace, which is (n - 1) tr(Sigma) for both products."""
    trace = float(scatter.trace())
    if not 0 < trace < float("inf"):
        raise UserError(f"The activations' squares sum to {trace} in float64; rescale them.")
    return trace


def _quotients(centred: Tensor, scatter: Tensor, epsilon: float, drawn: Tensor) -> Tensor:
    """Rayleigh quotients of (S + epsilon I)^-1, S = X'X, for the drawn pairs, [pairs]."""
    n, d = centred.shape
    if n < d:
        return gram_quotients(scatter, epsilon, drawn)
    return scatter_quotients(scatter, centred, epsilon, drawn)


def median(values: Tensor) -> float:
    """The median; of an even number of values the mean of the middle two, unlike torch.median."""
    return float(values.quantile(0.5))
