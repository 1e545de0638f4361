"""How long the proxies and the grid take here, told by timing one matrix of each size."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import torch

from dihal_bench.geometry.anatomy import anatomy
from dihal_bench.geometry.locate import VIEWS
from dihal_bench.geometry.proxies import layer_proxies
from dihal_bench.geometry.readings import NEIGHBOURS, RIDGES, SPACES, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dihal_bench.geometry.locate import LocateConfig

_TIMES = 2  # that a matrix is timed: the first loads libraries and threads


@cache
def proxy_seconds(config: LocateConfig, layers: int, dimensions: int) -> float:
    """Estimate the seconds of `locate` after the backbone's pass, from random states.

    Args:
        config: settings.
        layers: candidates.
        dimensions: of a state.
    """

    def one(states: torch.Tensor) -> object:
        return layer_proxies(
            states, neighbours=config.neighbours, ridge=config.ridge, pairs=config.pairs
        )

    return len(VIEWS) * layers * _resamples(config, dimensions, one)


@cache
def grid_seconds(config: LocateConfig, layers: int, dimensions: int) -> float:
    """Estimate the seconds of the grid at most: views that keep the same tokens are read once.

    Args:
        config: settings.
        layers: candidates.
        dimensions: of a state.
    """

    def one(states: torch.Tensor) -> object:
        return anatomy(
            states.double(), neighbours=NEIGHBOURS, ridges=RIDGES, pairs=config.pairs, seed=0
        )

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the grid is read: a matrix per thread
    try:
        seconds = _resamples(config, dimensions, one)
    finally:
        torch.set_num_threads(threads)
    return len(TOKENS) * len(SPACES) * layers * seconds / threads


def _resamples(
    config: LocateConfig, dimensions: int, one: Callable[[torch.Tensor], object]
) -> float:
    """Seconds of all resamples of one layer in one view."""
    kept = config.windows * config.per_window
    large = config.resamples * _timed(min(config.sample, kept), dimensions, one)
    small = config.stability_resamples * _timed(min(config.stability_sample, kept), dimensions, one)
    return large + small


def _timed(rows: int, dimensions: int, one: Callable[[torch.Tensor], object]) -> float:
    states = torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(0))
    best = float("inf")
    for _ in range(_TIMES):
        start = time.perf_counter()
        one(states)
        best = min(best, time.perf_counter() - start)
    return best
