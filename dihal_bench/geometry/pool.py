"""Proxies of many subsamples of one pool of activations, of which the Gram matrix is formed once.

A subsample's inner products are a part of the pool's, and looked up faster than formed. So the
pool's matrix is formed where that saves work, and where memory allows it. With n < d the part is
centred anew, and is all that the proxies need.
"""

from __future__ import annotations

import os
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
    moments_proxies,
)
from dihal_bench.geometry.spectrum import self_product

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_LOOKUP = 250  # dimensions of an inner product that costs as much as looking one up
_SHARE = 4  # of the machine's memory the Gram matrix may take one part in so many
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
        The proxies of each subset in turn, equal to those of `layer_proxies` to about 1e-9. Where
        inner products are shared, ties between neighbours go to the lower row of the pool.

    Raises:
        UserError: as `layer_proxies` does.
    """
    rows = as_matrix(activations)
    pool = Pool(rows, shared=shares(rows.shape, [len(subset) for subset in subsets]))
    for seed, subset in enumerate(subsets):
        own = pool.moments(subset, neighbours=neighbours)
        yield moments_proxies(own, neighbours=neighbours, ridge=ridge, pairs=pairs, seed=seed)


def shares(shape: tuple[int, ...], sizes: Sequence[int]) -> bool:
    """Whether subsets of these sizes take their inner products from a pool [p, d]."""
    p, d = shape
    saves = p**2 * d <= sum(n**2 for n in sizes) * (d - _LOOKUP)
    return saves and gram_bytes(p) <= _memory() // _SHARE


def gram_bytes(rows: int) -> int:
    """Return the memory of a pool's Gram matrix, in bytes."""
    return 8 * rows**2


def _memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Pool:
    """Activations of which subsamples are taken.

    Args:
        rows: the activations, [p, d].
        shared: whether inner products are formed once, for all subsamples.
    """

    def __init__(self, rows: Tensor, *, shared: bool):
        self._rows = rows
        self._equal = first_equal(rows).cpu().numpy()
        self._gram = self_product(_centred(rows.double())) if shared else None

    def moments(self, subset: NDArray[np.int64], *, neighbours: int) -> Moments:
        """Take apart the rows of a subset.

        Args:
            subset: row indices without repetition.
            neighbours: the largest neighbourhood that will be asked for.

        Raises:
            UserError: as `layer_proxies` does.
        """
        _, first = np.unique(self._equal[subset], return_index=True)
        duplicates = len(subset) - len(first)
        check_enough(len(first), duplicates, neighbours)
        distinct = subset[np.sort(first)]
        if self._gram is None:
            return Moments.of_distinct(self._rows[self._index(distinct)], duplicates)
        order = np.argsort(distinct)  # looked up in the order in which they lie in memory
        index, place = self._index(distinct[order]), self._index(np.argsort(order))
        gram, scale = _looked_up(self._gram, index, centre=len(index) < self._rows.shape[1])
        return Moments.of_distinct(self._rows[index], duplicates, gram, scale, place)

    def _index(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(rows).to(self._rows.device)


def _centred(points: Tensor) -> Tensor:
    return points - finite_mean(points)


def _looked_up(
    products: Tensor, index: Tensor, *, centre: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Inner products of some points, and the scale of their rounding.

    They are about the pool's mean, or with ``centre`` about the points' own. None where the two are
    so far apart that the products lack digits.
    """
    gram = products[index[:, None], index]
    mean = gram.mean(dim=0)
    offset = mean.mean()  # the squared distance of the means
    scale = gram.diagonal() + offset
    if offset > _FAR * (scale.mean() - 2 * offset):
        return None, None
    if centre:
        gram -= mean
        gram -= (mean - offset)[:, None]
    return gram, scale
