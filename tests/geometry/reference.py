"""The proxies again: slow, obvious, float64, one line of the definition after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.geometry.proxies import LayerProxies, sample_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]


def layer_proxies_reference(
    activations: Matrix,
    *,
    neighbours: int = 20,
    ridge: float = 1e-3,
    pairs: int = 5000,
    seed: int = 0,
) -> LayerProxies:
    points = distinct_rows(activations)
    n, d = points.shape
    sigma = np.cov(points.T).reshape(d, d)
    eigenvalues = np.linalg.eigvalsh(sigma)
    precision = np.linalg.inv(sigma + ridge * np.trace(sigma) / d * np.eye(d))
    quotients = []
    for i, j in sample_pairs(n, pairs, seed):
        u = points[i] - points[j]
        quotients.append(u @ precision @ u / (u @ u))
    return LayerProxies(
        curvature=float(np.median([1 / local_variance(points, i, neighbours) for i in range(n)])),
        stiffness=float(np.median(quotients)),
        effective_rank=float(np.trace(sigma) / eigenvalues[-1]),
        participation_ratio=float(np.trace(sigma) ** 2 / np.trace(sigma @ sigma)),
        duplicates=len(activations) - n,
        n=n,
        d=d,
    )


def distinct_rows(activations: Matrix) -> Matrix:
    seen: set[tuple[float, ...]] = set()
    kept = []
    for row in np.asarray(activations, dtype=np.float64):
        if tuple(row) not in seen:
            seen.add(tuple(row))
            kept.append(row)
    return np.array(kept)


def local_variance(points: Matrix, i: int, neighbours: int) -> float:
    distances = ((points - points[i]) ** 2).sum(axis=1)
    others = [j for j in np.argsort(distances, kind="stable") if j != i]
    cloud = points[others[:neighbours]]
    cloud = cloud - cloud.mean(axis=0)
    covariance = cloud.T @ cloud / (neighbours - 1)
    return float(np.linalg.eigvalsh(covariance)[-1])
