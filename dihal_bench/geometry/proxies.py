"""Locate, part one: three geometric proxies of a layer from a sample of its activations.

DiHAL, Section 3.2 (arXiv 2605.14368). All arithmetic is float64, and the data are centred before any
product is formed, so neither a large common offset nor TF32 can cost digits. With n < d everything
follows from the n x n Gram matrix, otherwise from the d x d covariance: no d x d eigendecomposition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dihal_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

_ROUNDING = 64 * torch.finfo(torch.float64).eps  # error of a float64 inner product over |x| |y|
_RELATIVE_ERROR = 1e-6  # of anything that is kept; what cannot promise it is computed anew
_MARGIN = 16  # candidates beyond the k-th that are ranked again when the k-th is not clear
_DENSE = 384  # up to this size a full eigendecomposition is faster than Lanczos
_BLOCK = 2**21  # float64 elements of one temporary: 16 MiB


@dataclass(frozen=True, kw_only=True)
class LayerProxies:
    """The three proxies of one layer, and what they were computed from.

    Attributes:
        curvature: kappa, the median over points of 1 / lambda_max of the covariance of its neighbours
            (in 1 / activation units squared).
        stiffness: m, the median over pairs of the Rayleigh quotient of the regularised precision
            (in 1 / activation units squared).
        effective_rank: r = tr(Sigma) / lambda_max(Sigma), at least 1. Elsewhere this is called the
            intrinsic dimension or stable rank; it is not the exponential of the spectrum's entropy.
        participation_ratio: tr(Sigma)^2 / tr(Sigma^2), at least `effective_rank`; where the two are far
            apart a single direction (a massive activation) decides `effective_rank`.
        duplicates: rows removed because an earlier row is equal to them.
        n: distinct rows that were used; all divisors are n - 1 and k - 1 of these.
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
        """Whether the stiffness is an artefact of its own sample (n < 2 d).

        Without a ridge u' Sigma^+ u is 2 (n - 1) for *every* pair when n <= d, so that m is then only an
        inverse squared distance; a precision from other documents with n >= 10 d is the better estimate.
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

    Exactly equal rows are reduced to their first occurrence: they would make the curvature infinite and
    a pair's quotient 0 / 0. Rows that are only nearly equal stay: their neighbourhoods have a tiny but
    positive lambda_max, and raise the curvature only where they hold more than half of all points.
    Constant dimensions add nothing but their count d in the ridge. Neighbours at exactly the same
    distance are taken in the order of their rows.

    Args:
        activations: H, [n, d], any floating dtype, on any device with float64; a row is a token's state.
        neighbours: k, the size of a neighbourhood; the point itself is not in it.
        ridge: rho in P = (Sigma + rho tr(Sigma) / d I)^-1.
        pairs: how many pairs (i, j), i != j, `sample_pairs` draws for the stiffness.
        seed: of the pairs; nothing else is random in the result.

    Returns:
        The proxies, accurate to a relative 1e-6.

    Raises:
        UserError: If the activations are not a finite matrix, fewer than k + 2 rows are distinct, or a
            setting is out of range.
    """
    _check_settings(neighbours=neighbours, ridge=ridge, pairs=pairs)
    rows = _finite_matrix(activations)
    kept = _first_occurrences(rows)
    duplicates = len(rows) - len(kept)
    points = rows[kept].double()  # (n, d)
    _check_enough(len(points), duplicates, neighbours)
    drawn = torch.from_numpy(sample_pairs(len(points), pairs, seed)).to(points.device)
    curvature, stiffness, rank, participation = _measure(points, neighbours, ridge, drawn)
    return LayerProxies(
        curvature=curvature,
        stiffness=stiffness,
        effective_rank=rank,
        participation_ratio=participation,
        duplicates=duplicates,
        n=points.shape[0],
        d=points.shape[1],
    )


def sample_pairs(n: int, pairs: int, seed: int) -> NDArray[np.int64]:
    """Draw ordered pairs (i, j), i != j, uniformly and with replacement.

    Args:
        n: points to draw from, at least 2.
        pairs: pairs to draw.
        seed: of NumPy's default generator, so that a pair is the same on every device.

    Returns:
        Indices, shape [pairs, 2].
    """
    generator = np.random.default_rng(seed)
    first = generator.integers(n, size=pairs)
    return np.stack([first, (first + generator.integers(1, n, size=pairs)) % n], axis=1)


def largest_eigenvalue(matrix: Tensor, *, tolerance: float = 1e-7) -> float:
    """The largest eigenvalue of a symmetric positive semi-definite matrix.

    Small matrices are decomposed; larger ones go through Lanczos with full reorthogonalisation until
    the residual, which bounds the error, is below the tolerance.

    Args:
        matrix: [p, p], float64.
        tolerance: largest residual, relative to the eigenvalue.

    Returns:
        lambda_max.
    """
    if len(matrix) <= _DENSE:
        return float(torch.linalg.eigvalsh(matrix)[-1])
    start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    basis = (start / start.norm()).to(matrix.device)[None]  # (steps, p), orthonormal rows
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = matrix @ basis[-1]
        diagonal.append(float(image @ basis[-1]))
        for _ in range(2):  # once leaves a remainder of the order of the rounding error times its growth
            image = image - basis.mT @ (basis @ image)
        beside.append(float(image.norm()))
        top, residual = _ritz(diagonal, beside)
        if residual <= tolerance * top or len(basis) == len(matrix):
            return top
        basis = torch.cat([basis, image[None] / beside[-1]])


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[float, float]:
    """The largest eigenvalue of Lanczos' tridiagonal matrix, and its residual in the full space."""
    tridiagonal = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    values, vectors = np.linalg.eigh(tridiagonal)
    return float(values[-1]), float(beside[-1] * abs(vectors[-1, -1]))


def _check_settings(*, neighbours: int, ridge: float, pairs: int) -> None:
    if neighbours < 2:
        raise UserError(f"neighbours={neighbours} has no covariance; choose at least 2.")
    if not 0 < ridge < float("inf"):
        raise UserError(f"ridge={ridge} does not regularise the precision; choose a positive number.")
    if pairs < 1:
        raise UserError(f"pairs={pairs} leaves no pair to take a median of; choose at least 1.")


def _check_enough(distinct: int, duplicates: int, neighbours: int) -> None:
    if distinct <= neighbours + 1:
        raise UserError(
            f"Only {distinct} of {distinct + duplicates} activations are distinct, but "
            f"neighbours={neighbours} needs at least {neighbours + 2}; sample more tokens."
        )


def _finite_matrix(activations: Tensor | NDArray[np.generic]) -> Tensor:
    """The activations as a detached floating matrix, [rows, d], in their own precision."""
    rows = torch.as_tensor(activations).detach()
    if rows.ndim != 2 or 0 in rows.shape:
        raise UserError(f"Activations have shape {tuple(rows.shape)}; give a matrix [tokens, dimensions].")
    if not rows.is_floating_point():
        rows = rows.double()
    finite = torch.isfinite(rows).all(dim=1)
    if not finite.all():
        raise UserError(
            f"{int((~finite).sum())} of {len(rows)} activations hold a NaN or an infinity; "
            "load the backbone in bfloat16 or float32, or leave those tokens out."
        )
    return rows


def _first_occurrences(rows: Tensor) -> Tensor:
    """Indices of the rows that no earlier row equals, in their order.

    Rows are compared through integer hashes: unlike a floating sum, one does not depend on the order of
    summation, so equal rows always meet. A row is dropped only if it really is equal.
    """
    words = (rows + 0.0).contiguous()  # -0.0 + 0.0 is 0.0: equal numbers have equal bits
    words = words.view(torch.int16 if rows.element_size() == 2 else torch.int32)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=generator).to(rows.device)
    hashes = torch.cat([(block.long() * weights).sum(1) for block in words.split(_chunk(words.shape[1]))])
    _, group = torch.unique(hashes, return_inverse=True)
    index = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(index, len(rows)).scatter_reduce(0, group, index, "amin")[group]
    later = index[first < index]
    later = later[(rows[later] == rows[first[later]]).all(dim=1)]
    return index[~torch.isin(index, later)]


def _measure(points: Tensor, k: int, ridge: float, drawn: Tensor) -> tuple[float, float, float, float]:
    """Curvature, stiffness, effective rank and participation ratio of distinct points, [n, d]."""
    n, d = points.shape
    centred = points - points.mean(dim=0)
    wide = n < d
    spread = _self_product(centred if wide else centred.mT) / (n - 1)  # Gram (n, n) or Sigma (d, d)
    trace = float(spread.trace())
    if not 0 < trace < float("inf"):
        raise UserError(f"The activations' total variance is {trace} in float64; rescale them.")
    epsilon = ridge * trace / d
    precision = _gram_quotients if wide else _covariance_quotients
    quotients = precision(spread, centred, epsilon, drawn)
    gram = spread * (n - 1) if wide else None
    local = _local_variances(points, centred, gram, k)
    rank = trace / largest_eigenvalue(spread)
    participation = trace**2 / float((spread * spread).sum())
    return _median(1 / local), _median(quotients), rank, participation


def _self_product(x: Tensor) -> Tensor:
    """X X', [p, p] from [p, q]: block rows of one triangle, mirrored."""
    product = x.new_empty(len(x), len(x))
    step = max(64, -(-len(x) // 8))
    for start in range(0, len(x), step):
        here = slice(start, start + step)
        product[here, : start + step] = x[here] @ x[: start + step].mT
        product[:start, here] = product[here, :start].mT
    return product


def _covariance_quotients(sigma: Tensor, centred: Tensor, epsilon: float, drawn: Tensor) -> Tensor:
    """u'P u / u'u for u = h_i - h_j, [pairs], as |L^-1 u|^2 with L L' = Sigma + epsilon I."""
    factor = _cholesky(sigma, epsilon)
    u = (centred[drawn[:, 0]] - centred[drawn[:, 1]]).mT  # (d, pairs)
    return torch.linalg.solve_triangular(factor, u, upper=False).square().sum(0) / u.square().sum(0)


def _gram_quotients(spread: Tensor, centred: Tensor, epsilon: float, drawn: Tensor) -> Tensor:
    """The same from K = X X' / (n - 1) and Woodbury: with u = X'c, c = e_i - e_j, M = K + epsilon I.

    u'P u = (n - 1) c' M^-1 K c = (n - 1) (c'c - epsilon c' M^-1 c), where 2 (n - 1) is what is left
    without a ridge.
    """
    n = len(centred)
    inverse = torch.cholesky_inverse(_cholesky(spread, epsilon))
    form = (n - 1) * (2 - epsilon * _pair_form(inverse, drawn))
    return form / ((n - 1) * _pair_form(spread, drawn))


def _pair_form(matrix: Tensor, drawn: Tensor) -> Tensor:
    """(e_i - e_j)' A (e_i - e_j), [pairs], for a symmetric A."""
    i, j = drawn.unbind(1)
    diagonal = matrix.diagonal()
    return diagonal[i] + diagonal[j] - 2 * matrix[i, j]


def _cholesky(matrix: Tensor, epsilon: float) -> Tensor:
    """The lower factor of A + epsilon I."""
    shifted = matrix.clone()
    shifted.diagonal().add_(epsilon)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        raise UserError("The covariance is singular with this ridge in float64; choose a larger one.")
    return factor


def _local_variances(points: Tensor, centred: Tensor, gram: Tensor | None, k: int) -> Tensor:
    """lambda_max of the covariance of every point's k nearest neighbours, [n]."""
    nearest = _nearest(points, centred, gram, k)  # (n, k)
    if gram is None:
        return _variances_from_differences(points, nearest)
    local = gram[nearest[:, :, None], nearest[:, None, :]]  # (n, k, k)
    largest = _largest_of_centred(local)
    rounding = _ROUNDING * gram.diagonal()[nearest].amax(1)
    lost = (largest * _RELATIVE_ERROR < rounding).nonzero()[:, 0]  # near-duplicates: cancellation
    largest[lost] = _variances_from_differences(points, nearest[lost])
    return largest


def _variances_from_differences(points: Tensor, nearest: Tensor) -> Tensor:
    """lambda_max from the k x k Gram matrix of explicitly centred neighbours, [rows]."""
    largest = []
    for index in nearest.split(_chunk(nearest.shape[1] * points.shape[1])):
        cloud = points[index] - points[index[:, :1]]  # exact where neighbours are close
        cloud -= cloud.mean(dim=1, keepdim=True)
        largest.append(_largest_of_centred(cloud @ cloud.mT))
    return torch.cat(largest) if largest else points.new_empty(0)


def _largest_of_centred(local: Tensor) -> Tensor:
    """lambda_max of doubly centred k x k Gram matrices over k - 1, [rows] from [rows, k, k]."""
    local = local - local.mean(dim=1, keepdim=True)
    local = local - local.mean(dim=2, keepdim=True)
    largest: Tensor = torch.linalg.eigvalsh(local)[:, -1] / (local.shape[1] - 1)
    return largest


def _nearest(points: Tensor, centred: Tensor, gram: Tensor | None, k: int) -> Tensor:
    """The k nearest other points of each, [n, k]; exact, ties by the lower row."""
    n = len(points)
    square = centred.square().sum(dim=1)
    count = min(k + _MARGIN, n - 1)
    found = []
    for rows in torch.arange(n, device=points.device).split(_chunk(n)):
        inner = centred[rows] @ centred.mT if gram is None else gram[rows]
        distance = torch.add(square, inner, alpha=-2)  # (rows, n), short of the constant |x_i|^2
        distance[torch.arange(len(rows), device=rows.device), rows] = float("inf")
        near = distance.topk(count, largest=False)
        rounding = _ROUNDING * torch.maximum(square[rows], square[near.indices].amax(1))
        found.append(_settle(points, rows, near.values, near.indices, rounding, k))
    return torch.cat(found)


def _settle(
    points: Tensor, rows: Tensor, values: Tensor, indices: Tensor, rounding: Tensor, k: int
) -> Tensor:
    """The first k candidates, ranked anew where rounding leaves open which is the k-th, [rows, k]."""
    nearest = indices[:, :k].clone()
    unclear = values[:, k] - values[:, k - 1] <= rounding
    beyond = values[:, -1] - values[:, k - 1] <= rounding  # not even the candidates are certain
    among = (unclear & ~beyond).nonzero()[:, 0]
    nearest[among] = _rank(points, rows[among], indices[among].sort(dim=1).values, k)
    for row in beyond.nonzero()[:, 0]:
        others = torch.arange(len(points), device=rows.device)
        nearest[row] = _rank(points, rows[row, None], others[others != rows[row]][None], k)[0]
    return nearest


def _rank(points: Tensor, rows: Tensor, candidates: Tensor, k: int) -> Tensor:
    """The k nearest of ascending candidates by explicit differences, [rows, k] from [rows, c]."""
    size = _chunk(candidates.shape[1] * points.shape[1])
    nearest = []
    for here, index in zip(rows.split(size), candidates.split(size), strict=True):
        distance = (points[index] - points[here, None]).square().sum(dim=2)
        order = distance.sort(dim=1, stable=True).indices[:, :k]
        nearest.append(index.gather(1, order))
    return torch.cat(nearest)


def _chunk(elements: int) -> int:
    """How many items of so many elements one block may hold."""
    return max(1, _BLOCK // elements)


def _median(values: Tensor) -> float:
    """The median, the mean of the middle two when their number is even (unlike torch.median)."""
    return float(values.quantile(0.5))
