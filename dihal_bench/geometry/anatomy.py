"""All readings of one matrix of activations that the protocol grid asks for, from shared products.

The Gram matrix or the covariance is computed once; neighbourhoods of every size, ridges and ranks
are read off it. ``proxies.layer_proxies`` is the paper's choice among these readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dihal_bench.geometry.neighbourhoods import local_spectra
from dihal_bench.geometry.proxies import Moments, median

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

CURVATURES = ("largest", "trace")  # of the local covariance, inverted
RANKS = ("stable", "participation", "entropy")


@dataclass(frozen=True, kw_only=True)
class MatrixStatistics:
    """One matrix.

    Attributes:
        curvature: (kind, k) -> median over points of 1 / lambda_max ("largest") or 1 / trace of the
            covariance of k neighbours (in 1 / activation units squared).
        stiffness: rho -> median over pairs of the Rayleigh quotient of the precision (in the same).
        rank: tr / lambda_max ("stable": DiHAL's effective rank), tr^2 / tr(Sigma^2)
            ("participation"), exp of the entropy of lambda / tr ("entropy": Roy and Vetterli's
            effective rank); they never descend in this order.
        duplicates: rows that equal an earlier one.
        n: distinct rows.
        d: dimensions.
    """

    curvature: dict[tuple[str, int], float]
    stiffness: dict[float, float]
    rank: dict[str, float]
    duplicates: int
    n: int
    d: int


def anatomy(
    activations: Tensor | NDArray[np.generic],
    *,
    neighbours: Sequence[int],
    ridges: Sequence[float],
    pairs: int = 5000,
    seed: int = 0,
) -> MatrixStatistics:
    """Read a matrix in every way.

    Args:
        activations: a row per token, [n, d].
        neighbours: sizes of neighbourhoods.
        ridges: of the precision, in units of the mean variance.
        pairs: sampled for the stiffness.
        seed: of the pairs.

    Returns:
        The readings, each as `layer_proxies` defines it and as accurate.

    Raises:
        UserError: as `layer_proxies`.
    """
    moments = Moments.of(activations, neighbours=max(neighbours))
    drawn = moments.pairs(pairs, seed)
    spectra = local_spectra(moments.points, moments.centred, moments.gram, neighbours)
    curvature = {
        (kind, k): median(1 / variances)
        for k, own in spectra.items()
        for kind, variances in zip(CURVATURES, own, strict=True)
    }
    return MatrixStatistics(
        curvature=curvature,
        stiffness={rho: moments.stiffness(rho, drawn) for rho in ridges},
        rank=ranks(torch.linalg.eigvalsh(moments.scatter)),
        duplicates=moments.duplicates,
        n=moments.n,
        d=moments.d,
    )


def ranks(spectrum: Tensor) -> dict[str, float]:
    """The three effective ranks of a covariance.

    Args:
        spectrum: its eigenvalues on any scale, ascending, [p]; below zero is rounding.

    Returns:
        A value by each name of ``RANKS``.
    """
    share = spectrum.clamp(min=0) / spectrum.clamp(min=0).sum()
    inside = share[share > 0]
    return {
        "stable": float(1 / share[-1]),
        "participation": float(1 / share.square().sum()),
        "entropy": float(torch.exp(-(inside * inside.log()).sum())),
    }
