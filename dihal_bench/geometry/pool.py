"""Proxies of many subsamples of one pool of activations, of which the Gram matrix is formed once.

A subsample's centred Gram matrix is a part of the pool's, centred anew. With n < d that matrix is
all that the proxies need, and the product that makes it is most of their cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from dihal_bench.geometry.proxies import (
    LayerProxies,
    Moments,
    as_matrix,
    check_enough,
    finite_mean,
    first_equal,
    layer_proxies,
    moments_proxies,
    total_of,
)
from dihal_bench.geometry.spectrum import self_product

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_POOL_ROWS = 8192  # 512 MiB of Gram matrix
_FAR = 100  # squared distance of the means over the variance that would cost a third digit


def resampled_proxies(
    activations: Tensor | NDArray[np.generic],
    subsets: Sequence[NDArray[np.int64]],
    *,
    neighbours: int = 20,
    ridge: float = 1e-3,
    pairs: int = 5000,
) -> Iterator[LayerProxies]:
    """`layer_proxies` of every subset of rows, the r-th with the seed r.

    Args:
        activations: the pool, [p, d].
        subsets: row indices, each without repetition.
        neighbours: as `layer_proxies` takes it.
        ridge: as `layer_proxies` takes it.
        pairs: as `layer_proxies` takes it.

    Yields:
        The proxies of each subset in turn, equal to those of `layer_proxies` to about 1e-9.

    Raises:
        UserError: as `layer_proxies` does.
    """
    rows = as_matrix(activations)
    p, d = rows.shape
    fewer = [len(subset) for subset in subsets if len(subset) < d]
    pays = p <= _POOL_ROWS and p**2 <= sum(n**2 for n in fewer)
    pool = Pool(rows) if pays else None
    for seed, subset in enumerate(subsets):
        if pool is not None and len(subset) < d:
            own = pool.moments(subset, neighbours=neighbours)
            yield moments_proxies(own, neighbours=neighbours, ridge=ridge, pairs=pairs, seed=seed)
        else:
            yield layer_proxies(
                rows[subset], neighbours=neighbours, ridge=ridge, pairs=pairs, seed=seed
            )


class Pool:
    """Activations of which subsamples are taken, and their Gram matrix."""

    def __init__(self, rows: Tensor):
        self._points = rows.double()
        self._equal = first_equal(rows).cpu().numpy()
        self._gram = self_product(self._points - finite_mean(self._points))

    def moments(self, subset: NDArray[np.int64], *, neighbours: int) -> Moments:
        """Take apart the rows of a subset, in its order: their Gram matrix is centred anew.

        Args:
            subset: row indices without repetition, fewer than d.
            neighbours: the largest neighbourhood that will be asked for.

        Raises:
            UserError: as `layer_proxies` does.
        """
        _, first = np.unique(self._equal[subset], return_index=True)
        duplicates = len(subset) - len(first)
        check_enough(len(first), duplicates, neighbours)
        index = torch.from_numpy(subset[np.sort(first)]).to(self._points.device)
        points = self._points[index]
        centred = points - points.mean(dim=0)
        gram, scale = self._recentred(index)
        if scale is None:
            gram = self_product(centred)
        return Moments(
            points=points,
            centred=centred,
            scatter=gram,
            gram=gram,
            trace=total_of(gram),
            duplicates=duplicates,
            scale=scale,
        )

    def _recentred(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """A part of the Gram matrix about its own mean, and the scale of its rounding.

        Without a scale that mean is too far from the pool's, and the matrix lacks digits.
        """
        gram = self._gram[index[:, None], index]
        mean = gram.mean(dim=0)
        offset = mean.mean()  # the squared distance of the means
        scale = gram.diagonal() + offset
        gram -= mean
        gram -= (mean - offset)[:, None]
        return gram, None if offset > _FAR * gram.diagonal().mean() else scale
