"""How long proxies take here, told by timing one matrix of each size."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import torch

from dihal_bench.geometry.locate import VIEWS
from dihal_bench.geometry.proxies import layer_proxies

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

    return len(VIEWS) * layers * resamples_seconds(config, dimensions, one)


def resamples_seconds(
    config: LocateConfig, dimensions: int, one: Callable[[torch.Tensor], object]
) -> float:
    """Return the seconds of all resamples of one layer in one view, by ``one`` for each matrix."""
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
