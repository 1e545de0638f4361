"""What the proxies cost at scale: ``python -m dihal_bench.geometry.cost``.

Times a slice with random data of a large model's shape (one layer, a few resamples) against two
yardsticks on the same machine: the Gram products alone, one n x n x d product in float64 per
resample; and the obvious implementation, the definitions in NumPy with a d x d covariance per
neighbourhood, an inverse and full eigendecompositions. The slice is then extrapolated.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from tabulate import tabulate

from dihal_bench.geometry.pool import Pool
from dihal_bench.geometry.proxies import layer_proxies, moments_proxies, sample_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")

_RIDGE = 1e-3
_POINTS = 2  # neighbourhoods of the obvious implementation that are timed, of n


@dataclass(frozen=True)
class Shape:
    """What is timed, and what it is extrapolated to.

    Attributes:
        sample: n, tokens of a resample.
        pool: tokens that the resamples are drawn from.
        dimensions: d.
        neighbours: k.
        pairs: pairs of the stiffness.
        resamples: timed resamples.
        layers: layers of the extrapolation.
        all_resamples: resamples of the extrapolation.
    """

    sample: int
    pool: int
    dimensions: int
    neighbours: int
    pairs: int
    resamples: int
    layers: int
    all_resamples: int


def measure(shape: Shape, *, obvious: bool = True) -> dict[str, float]:
    """Time the slice; return the fastest seconds of each part.

    Args:
        shape: what is timed.
        obvious: whether the obvious implementation is timed, which takes longest by far.

    Returns:
        "pool": the Gram matrix of the pool, once per layer; "resample": the proxies of a resample
        of the pool; "alone": those of a resample without a pool; "gram": one n x n x d product in
        float64; "obvious": the obvious implementation of a resample, scaled from a part.
    """
    states = _states(shape)
    options: dict[str, Any] = {"neighbours": shape.neighbours, "ridge": _RIDGE}
    options["pairs"] = shape.pairs
    layer_proxies(states[: 4 * shape.neighbours], **options)  # libraries and threads are loaded
    pool, pool_seconds = _timed(lambda: Pool(states, shared=True))
    draw = np.random.default_rng(1)
    subsets = [draw.permutation(shape.pool)[: shape.sample] for _ in range(shape.resamples)]

    def pooled(index: int) -> None:
        own = pool.moments(subsets[index], neighbours=shape.neighbours)
        moments_proxies(own, seed=index, **options)

    points = states[subsets[0]].double()
    work: dict[str, Callable[[int], object]] = {
        "resample": pooled,
        "alone": lambda index: layer_proxies(states[subsets[index]], seed=index, **options),
        "gram": lambda _: points @ points.mT,
    }
    seconds = {name: float("inf") for name in work} | {"pool": pool_seconds}
    for index in range(shape.resamples):  # by turns, so that all meet the same other load
        for name, part in work.items():
            seconds[name] = min(seconds[name], _timed(partial(part, index))[1])
    return seconds | ({"obvious": _obvious(points.numpy(), shape)} if obvious else {})


def table(shape: Shape, seconds: dict[str, float]) -> str:
    """The timings with their ratios, and the extrapolation to all layers and resamples."""
    gram, count = seconds["gram"], shape.all_resamples
    per_layer = {
        "Gram products alone": count * gram,
        "this package, one Gram matrix per pool": seconds["pool"] + count * seconds["resample"],
        "this package, every resample alone": count * seconds["alone"],
        "obvious implementation": count * seconds["obvious"],
    }
    rows = [
        {
            "": name,
            "a resample [s]": f"{layer / count:,.2f}",
            "times the Gram product": f"{layer / count / gram:,.2f}",
            f"{shape.layers} layers x {count} resamples [h]": f"{shape.layers * layer / 3600:,.2f}",
        }
        for name, layer in per_layer.items()
    ]
    fewer = per_layer["obvious implementation"] / per_layer["this package, every resample alone"]
    pooled = (
        per_layer["obvious implementation"] / per_layer["this package, one Gram matrix per pool"]
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**30 if sys.platform == "darwin" else 2**20
    )
    notes = [
        f"n = {shape.sample}, d = {shape.dimensions}, k = {shape.neighbours}, {shape.pairs} pairs, "
        f"pool of {shape.pool} (its Gram matrix: {seconds['pool']:.2f} s, once per layer); "
        f"{torch.get_num_threads()} threads, fastest of {shape.resamples}",
        f"the obvious implementation: {_POINTS} of {shape.sample} neighbourhoods timed and scaled",
        f"obvious / this package: {pooled:,.0f} (alone: {fewer:,.0f}); peak memory of this "
        f"measurement {peak:.1f} GiB",
    ]
    return "\n".join([tabulate(rows, headers="keys", disable_numparse=True), *notes])


def _states(shape: Shape) -> torch.Tensor:
    """Gaussian rows with a power-law spectrum and an offset, float32 [pool, d]."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(shape.pool, shape.dimensions, generator=generator)
    return rows * torch.arange(1, shape.dimensions + 1) ** -0.5 + 3


def _obvious(points: np.ndarray[Any, np.dtype[np.float64]], shape: Shape) -> float:
    """Seconds of a resample by the definitions; neighbourhoods are timed in part and scaled."""
    n, d = points.shape
    start = time.perf_counter()
    for point in points[:_POINTS]:
        distance = ((points - point) ** 2).sum(axis=1)
        nearest = np.argsort(distance)[1 : shape.neighbours + 1]
        np.linalg.eigvalsh(np.cov(points[nearest].T))
    local = (time.perf_counter() - start) * n / _POINTS
    start = time.perf_counter()
    sigma = np.cov(points.T)
    precision = np.linalg.inv(sigma + _RIDGE * np.trace(sigma) / d * np.eye(d))
    i, j = sample_pairs(n, shape.pairs, 0).T
    u = points[i] - points[j]
    np.median(((u @ precision) * u).sum(axis=1) / (u * u).sum(axis=1))
    np.linalg.eigvalsh(sigma)
    return float(local + time.perf_counter() - start)


def _timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """What ``work`` returns, and the seconds that it takes."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    numbers = {
        "sample": (3000, "n, tokens of a resample"),
        "pool": (5120, "tokens that resamples are drawn from"),
        "dimensions": (4096, "d"),
        "neighbours": (20, "k"),
        "pairs": (5000, "pairs of the stiffness"),
        "resamples": (3, "resamples that are timed; the fastest counts"),
        "layers": (33, "layers to extrapolate to"),
        "all-resamples": (100, "resamples to extrapolate to"),
    }
    for name, (default, text) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} ({default})")
    parser.add_argument("--threads", type=int, default=2, help="threads of every part (2)")
    given = vars(parser.parse_args(argv))
    torch.set_num_threads(given.pop("threads"))
    shape = Shape(**given)
    print(table(shape, measure(shape)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
