"""The global half of the proxies: second moments, their largest eigenvalue, the precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.linalg import eigh_tridiagonal

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_DENSE = 384  # up to this size a full eigendecomposition is faster than Lanczos
_PAIRS = 256  # pairs whose rows are held at a time
_SOLVED = 256  # below twice this size a triangular solve is not divided
_STEPS = 64  # Lanczos vectors are allocated by so many


def self_product(x: Tensor) -> Tensor:
    """X X', [p, p] from X [p, q]: block rows of one triangle, mirrored; about half the work."""
    product = x.new_empty(len(x), len(x))
    step = max(128, -(-len(x) // 16))
    for start in range(0, len(x), step):
        here = slice(start, start + step)
        torch.mm(x[here], x[: start + step].mT, out=product[here, : start + step])
        product[:start, here] = product[here, :start].mT
    return product


def largest_eigenvalue(matrix: Tensor, *, tolerance: float = 1e-6) -> float:
    """The largest eigenvalue of a symmetric positive semi-definite matrix.

    Small matrices are decomposed. Larger ones go through Lanczos with full reorthogonalisation
    until the residual is below the tolerance; the error is at most the residual, and of the order
    of its square over the gap below the largest eigenvalue.

    Args:
        matrix: [p, p], float64.
        tolerance: largest residual, relative to the eigenvalue.

    Returns:
        lambda_max.
    """
    p = len(matrix)
    if p <= _DENSE:
        return float(torch.linalg.eigvalsh(matrix)[-1])
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(p, generator=generator, dtype=matrix.dtype).to(matrix.device)
    basis = matrix.new_empty(0, p)  # orthonormal rows
    diagonal: list[float] = []
    beside: list[float] = [float(vector.norm())]
    for step in range(p):
        if step == len(basis):
            basis = torch.cat([basis, matrix.new_empty(min(_STEPS, p - step), p)])
        basis[step] = vector / beside[-1]
        vector = matrix @ basis[step]
        diagonal.append(float(vector @ basis[step]))
        for _ in range(2):  # a second pass removes what rounding left of the first
            vector -= basis[: step + 1].mT @ (basis[: step + 1] @ vector)
        beside.append(float(vector.norm()))
        top, residual = _ritz(diagonal, beside[1:])
        if residual <= tolerance * top:
            break
    return top


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[float, float]:
    """The largest eigenvalue of Lanczos' tridiagonal matrix, and its residual in the full space."""
    last = len(diagonal) - 1
    values, vectors = eigh_tridiagonal(
        diagonal, beside[:-1], select="i", select_range=(last, last), check_finite=False
    )
    return float(values[0]), float(beside[-1] * abs(vectors[-1, 0]))


def scatter_quotients(scatter: Tensor, centred: Tensor, epsilon: float, drawn: Tensor) -> Tensor:
    """Rayleigh quotients u'(S + epsilon I)^-1 u / u'u of the pairs' u = h_i - h_j, S = X'X.

    With L L' = S + epsilon I the form is |L^-1 u|^2, and L^-1 x is solved for once per point.

    Args:
        scatter: S, [d, d].
        centred: X, the centred activations, [n, d].
        epsilon: the ridge on the scale of S, rho tr(S) / d.
        drawn: the pairs' indices, [pairs, 2].

    Returns:
        The quotients, [pairs]; those of P are n - 1 times as large.

    Raises:
        UserError: If S + epsilon I is singular in float64.
    """
    factor = _cholesky(scatter, epsilon)
    white = torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT  # rows L^-1 x
    return _squared_distances(white, drawn) / _squared_distances(centred, drawn)


def gram_quotients(gram: Tensor, epsilon: float, drawn: Tensor) -> Tensor:
    """The same quotients when n < d, through the n x n Gram matrix G = X X' alone.

    With u = X'c, c = e_i - e_j and M = G + epsilon I, Woodbury's identity gives
    u'(S + epsilon I)^-1 u = c' M^-1 G c = c'c - epsilon c' M^-1 c, and u'u = c' G c.
    Without a ridge only c'c = 2 is left of the form, for every pair.

    Args:
        gram: G, [n, n].
        epsilon: the ridge on the scale of G, rho tr(G) / d.
        drawn: the pairs' indices, [pairs, 2].

    Returns:
        The quotients, [pairs]; those of P are n - 1 times as large.

    Raises:
        UserError: If M is singular in float64.
    """
    inverse = _inverse_factor(_cholesky(gram, epsilon))  # V, M^-1 = V V'
    form = _squared_distances(inverse, drawn)
    i, j = drawn.unbind(1)
    diagonal = gram.diagonal()
    quotients: Tensor = (2 - epsilon * form) / (diagonal[i] + diagonal[j] - 2 * gram[i, j])
    return quotients


def _inverse_factor(factor: Tensor) -> Tensor:
    """L'^-1 of a lower factor, [n, n]: by halves, mostly as matrix products."""
    half = len(factor) // 2
    if half < _SOLVED:
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        solved: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
        return solved.mT
    top, bottom = _inverse_factor(factor[:half, :half]), _inverse_factor(factor[half:, half:])
    inverse = factor.new_zeros(factor.shape)
    inverse[:half, :half], inverse[half:, half:] = top, bottom
    torch.mm(top @ factor[half:, :half].mT, bottom, out=inverse[:half, half:]).neg_()
    return inverse


def _squared_distances(rows: Tensor, drawn: Tensor) -> Tensor:
    """|r_i - r_j|^2 of the drawn pairs [pairs, 2] of rows [n, c], [pairs]."""
    blocks = torch.split(drawn, _PAIRS)
    return torch.cat([(rows[i] - rows[j]).square().sum(dim=1) for i, j in (b.T for b in blocks)])


def _cholesky(matrix: Tensor, epsilon: float) -> Tensor:
    """The lower factor of A + epsilon I.

    Whether a matrix that is singular but for rounding has a factor is a matter of the processor, so
    pivots that rounding alone can make are none.
    """
    shifted = matrix.clone()
    shifted.diagonal().add_(epsilon)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(shifted)
    least = len(matrix) * torch.finfo(matrix.dtype).eps * shifted.diagonal().max()
    if failed or factor.diagonal().square().min() < least:
        raise UserError(
            "The covariance is singular in float64 with so small a ridge; choose a larger one."
        )
    return factor
