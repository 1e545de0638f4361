"""The local half of the proxies: nearest neighbours, and the spectra of their covariances.

Inner products are the fast way to both, but they cancel where points are close compared with
their norms (near-duplicates, a massive activation, ties). Every step therefore knows its own
rounding error, and what it cannot decide, or not to a relative 1e-6, is computed again from
explicit differences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_ROUNDING = 64 * torch.finfo(torch.float64).eps  # error of a float64 inner product over |x| |y|
_RELATIVE_ERROR = 1e-6
_MARGIN = 8  # candidates beyond the k-th that are ranked again when the k-th is not clear
_FEW = 256  # dimensions up to which differences cost less than looking their products up
_RUN = 8  # entries of which only the smallest is looked at first
_BLOCK = 2**20  # float64 elements of one temporary: 8 MiB, near the size of a cache


def chunk_size(elements: int) -> int:
    """How many items of so many elements one temporary may hold."""
    return max(1, _BLOCK // elements)


def local_variances(
    points: Tensor, centred: Tensor, gram: Tensor | None, k: int, scale: Tensor | None = None
) -> Tensor:
    """lambda_max(C_i): C_i is the covariance of point i's k nearest neighbours about their mean.

    Args:
        points: distinct activations as given, float64, [n, d]; their differences are exact.
        centred: the same less their mean, [n, d].
        gram: X X' of the centred ones, [n, n], where it fits into memory.
        k: neighbours, at least 2 and at most n - 2; the point itself is not one of them.
        scale: squared norms of which the rounding of ``gram`` is a fraction, [n]; by default those
            on its diagonal.

    Returns:
        Variances over k - 1, all positive, [n].
    """
    nearest = nearest_neighbours(points, centred, gram, k, scale)  # (n, k)
    if gram is None:
        return _variances_from_differences(points, nearest)
    local = _centred(gram.take(nearest[:, :, None] * len(gram) + nearest[:, None, :]))
    largest: Tensor = torch.linalg.eigvalsh(local)[:, -1] / (k - 1)
    scale = gram.diagonal() if scale is None else scale
    rounding = _ROUNDING * scale[nearest].amax(dim=1)
    lost = (largest * _RELATIVE_ERROR <= rounding).nonzero()[:, 0]
    if len(lost):
        largest[lost] = _variances_from_differences(points, nearest[lost])
    return largest


def local_spectra(
    points: Tensor, centred: Tensor, gram: Tensor | None, sizes: Sequence[int]
) -> dict[int, Tensor]:
    """lambda_max(C_i) and tr(C_i) of neighbourhoods of several sizes at the cost of the largest.

    Args:
        points: as in `local_variances`, [n, d].
        centred: [n, d].
        gram: [n, n] or None.
        sizes: each as k there.

    Returns:
        By size, the largest and the total variance over k - 1, all positive, [2, n].
    """
    most = max(sizes)
    nearest = nearest_neighbours(points, centred, gram, most).sort(dim=1).values
    nearest = _rank(points, torch.arange(len(points), device=points.device), nearest, most)
    parts: dict[int, list[Tensor]] = {k: [] for k in sizes}
    for index in torch.split(nearest, chunk_size(most * max(most, _FEW))):
        if gram is not None and points.shape[1] > _FEW:
            spectra = _looked_up_spectra(points, gram, index, sizes)
        else:
            cloud = _cloud(points, index)
            spectra = {k: _spectra_of_cloud(cloud[:, :k]) for k in sizes}
        for k, own in spectra.items():
            parts[k].append(own)
    return {k: torch.cat(own, dim=1) for k, own in parts.items()}


def _looked_up_spectra(
    points: Tensor, gram: Tensor, index: Tensor, sizes: Sequence[int]
) -> dict[int, Tensor]:
    """By size, lambda_max and trace over k - 1 of neighbourhoods [rows, most], [2, rows]."""
    local = gram.take(index[:, :, None] * len(gram) + index[:, None, :])
    rounding = _ROUNDING * gram.diagonal()[index]
    found = {}
    for k in sizes:
        own = _centred(local[:, :k, :k])
        spectra = _spectra(own, own.diagonal(dim1=1, dim2=2).sum(dim=1), k)
        lost = spectra[0] * _RELATIVE_ERROR <= rounding[:, :k].amax(dim=1)
        if lost.any():
            spectra[:, lost] = _spectra_of_cloud(_cloud(points, index[lost, :k]))
        found[k] = spectra
    return found


def _cloud(points: Tensor, index: Tensor) -> Tensor:
    """Neighbours [rows, k] from their first one on, [rows, k, d]: exact where they are close."""
    return points[index] - points[index[:, :1]]


def _spectra_of_cloud(cloud: Tensor) -> Tensor:
    """lambda_max and trace over k - 1 of each covariance, [2, rows] from [rows, k, d]."""
    k, d = cloud.shape[1:]
    cloud = cloud - cloud.mean(dim=1, keepdim=True)
    products = cloud @ cloud.mT if k <= d else cloud.mT @ cloud
    return _spectra(products, cloud.square().sum(dim=(1, 2)), k)


def _spectra(products: Tensor, trace: Tensor, k: int) -> Tensor:
    """lambda_max and trace over k - 1 of symmetric products, [2, rows]."""
    return torch.stack([torch.linalg.eigvalsh(products)[:, -1], trace]) / (k - 1)


def _centred(local: Tensor) -> Tensor:
    """Gram matrices [rows, k, k] about the mean of their points."""
    local = local - local.mean(dim=1, keepdim=True)
    return local - local.mean(dim=2, keepdim=True)


def nearest_neighbours(
    points: Tensor, centred: Tensor, gram: Tensor | None, k: int, scale: Tensor | None = None
) -> Tensor:
    """The k nearest other points of every point, exact; of equally distant ones the lower row.

    Args:
        points: as in `local_variances`, [n, d].
        centred: [n, d].
        gram: [n, n] or None.
        k: at most n - 2.
        scale: as in `local_variances`, [n].

    Returns:
        Row indices, the first k in no particular order, [n, k].
    """
    n = len(points)
    square = centred.square().sum(dim=1) if gram is None else gram.diagonal()
    scale = square if scale is None else scale
    everyone = torch.arange(n, device=points.device)
    found = []
    for rows in torch.split(everyone, chunk_size(n)):
        block = slice(int(rows[0]), int(rows[-1]) + 1)
        inner = centred[block] @ centred.mT if gram is None else gram[block]
        distance = torch.add(square, inner, alpha=-2)  # (rows, n), short of the constant |x_i|^2
        distance.diagonal(block.start).fill_(float("inf"))
        values, indices = _smallest(distance, min(k + _MARGIN, n - 1))
        rounding = _ROUNDING * torch.maximum(scale[block], scale[indices].amax(dim=1))
        level = values - values[:, k - 1, None] <= rounding[:, None]
        found.append(_settle(points, rows, indices, level, k))
    return torch.cat(found)


def _smallest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The smallest entries of each row, ascending, and their columns, [rows, count] of [rows, n].

    Rows are cut into runs (column c is in run c mod runs): the smallest entries are in the runs
    with the smallest minima, so that most of a row is only read once.
    """
    runs = values.shape[1] // _RUN
    if runs <= 2 * count:
        return values.topk(count, largest=False)
    whole = values[:, : runs * _RUN].view(len(values), _RUN, runs)
    best = whole.amin(dim=1).topk(count, largest=False, sorted=False).indices
    first = torch.arange(_RUN, device=values.device)[:, None] * runs
    rest = torch.arange(runs * _RUN, values.shape[1], device=values.device)
    columns = torch.cat([(best[:, None] + first).flatten(1), rest.expand(len(values), -1)], dim=1)
    found, place = values.gather(1, columns).topk(count, largest=False)
    return found, columns.gather(1, place)


def _settle(points: Tensor, rows: Tensor, indices: Tensor, level: Tensor, k: int) -> Tensor:
    """The first k candidates, ranked anew where rounding leaves open which is the k-th.

    `level` says which candidates (ascending, [rows, c]) may be no farther than the k-th.
    """
    nearest = indices[:, :k].clone()
    beyond = level[:, -1]  # candidates that were not kept may be as near
    among = (level[:, k] & ~beyond).nonzero()[:, 0]
    if len(among):
        nearest[among] = _rank(points, rows[among], indices[among].sort(dim=1).values, k)
    everyone = torch.arange(len(points), device=points.device)
    for row in beyond.nonzero()[:, 0]:
        others = everyone[everyone != rows[row]]
        nearest[row] = _rank(points, rows[row, None], others[None], k)[0]
    return nearest


def _rank(points: Tensor, rows: Tensor, candidates: Tensor, k: int) -> Tensor:
    """The k nearest of ascending candidates by explicit differences, [rows, k] from [rows, c]."""
    size = chunk_size(candidates.shape[1] * points.shape[1])
    nearest = []
    for here, index in zip(torch.split(rows, size), torch.split(candidates, size), strict=True):
        distance = (points[index] - points[here, None]).square().sum(dim=2)
        order = distance.sort(dim=1, stable=True).indices[:, :k]
        nearest.append(index.gather(1, order))
    return torch.cat(nearest)


def _variances_from_differences(points: Tensor, nearest: Tensor) -> Tensor:
    """lambda_max(C_i) from explicitly centred neighbours, [rows] from [rows, k]."""
    blocks = torch.split(nearest, chunk_size(nearest.shape[1] * points.shape[1]))
    return torch.cat([_spectra_of_cloud(_cloud(points, index))[0] for index in blocks])
