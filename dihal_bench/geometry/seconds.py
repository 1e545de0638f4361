"""How long locating takes here, told by timing one pass and one matrix of each size.

On a CPU the time is that of this thread, which takes part in all that is computed: so what others
compute at the moment does not count.
"""

from __future__ import annotations

import time
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dihal_bench.data.tokens import Windows
from dihal_bench.geometry.activations import sample_activations
from dihal_bench.geometry.cache import PASS, is_large
from dihal_bench.geometry.locate import VIEWS
from dihal_bench.geometry.pool import Pool, shares
from dihal_bench.geometry.proxies import layer_proxies, moments_proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dihal_bench.geometry.locate import LocateConfig
    from dihal_bench.models.model import Backbone

_TIMES = 2  # that a matrix is timed: the first loads libraries and threads
_WARM = 16  # tokens of a pass that does so for a backbone


class _Noise:
    """Windows of random tokens, each of which is half of one document and half of another."""

    fingerprint = "noise"

    def __init__(self, window: int, vocabulary: int):
        self.window, self._vocabulary = window, vocabulary

    def __len__(self) -> int:
        return PASS

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Windows:
        """Return the windows with the given indices."""
        shape = (len(indices), self.window)
        place = np.broadcast_to(np.arange(self.window), shape).copy()
        return Windows(
            tokens=np.random.default_rng(0).integers(self._vocabulary, size=shape),
            positions=place,
            documents=(2 * place >= self.window).astype(np.int64),
            offsets=place,
            scored=place > 0,
            bytes=place,
            words=place,
        )


def pass_tokens(backbone: Backbone, config: LocateConfig, window: int) -> float:
    """Return how many tokens `locate` runs: a window may end with the last that is kept of it."""
    kept = min(config.per_window, window)
    length = kept * (window + 1) / (kept + 1) if is_large(backbone) else window
    return config.windows * length


@lru_cache(maxsize=1)  # it holds a backbone
def pass_seconds(
    backbone: Backbone, config: LocateConfig, window: int, *, residual: str, autocast: bool
) -> float:
    """Estimate the seconds of the backbone's pass, and of what is summed up on the way.

    Args:
        backbone: the model; one window runs through it, or a pass of them where it is small.
        config: settings.
        window: tokens of a window.
        residual: as `sample_activations` takes it.
        autocast: as `sample_activations` takes it.
    """
    clock = time.thread_time if backbone.device.type == "cpu" else time.perf_counter
    count, seconds = 1 if is_large(backbone) else PASS, 0.0
    for length in (min(_WARM, window), window):
        start = clock()
        sample_activations(
            backbone,
            _Noise(length, backbone.vocab_size),
            list(range(1, backbone.blocks)),
            windows=count,
            per_window=length,
            residual=residual,
            seed=0,
            cross_fit=True,
            autocast=autocast,
        )
        seconds = clock() - start
    return seconds / (count * window) * pass_tokens(backbone, config, window)


@cache
def proxy_seconds(config: LocateConfig, layers: int, dimensions: int) -> float:
    """Estimate the seconds of `locate` after the backbone's pass, from random states.

    Args:
        config: settings.
        layers: candidates.
        dimensions: of a state.
    """
    settings: dict[str, Any] = {
        "neighbours": config.neighbours,
        "ridge": config.ridge,
        "pairs": config.pairs,
    }
    kept = config.windows * config.per_window

    def shared(rows: int, count: int) -> float:
        def one(states: torch.Tensor) -> object:
            own = pool.moments(order, neighbours=config.neighbours)
            return moments_proxies(own, seed=0, **settings)

        pool, order = Pool(_states(rows, dimensions), shared=True), np.arange(rows)
        formed = _timed(rows, dimensions, lambda states: Pool(states, shared=True))
        return formed * (kept / rows) ** 2 + count * _timed(rows, dimensions, one)

    def alone(states: torch.Tensor) -> object:
        return layer_proxies(states, **settings)

    seconds = 0.0
    for rows, count in _resamples(config):
        if shares((kept, dimensions), [rows] * count):
            seconds += shared(rows, count)
        else:
            seconds += count * _timed(rows, dimensions, alone)
    return len(VIEWS) * layers * seconds


def resamples_seconds(
    config: LocateConfig, dimensions: int, one: Callable[[torch.Tensor], object]
) -> float:
    """Return the seconds of all resamples of one layer in one view, by ``one`` for each matrix."""
    return sum(count * _timed(rows, dimensions, one) for rows, count in _resamples(config))


def _resamples(config: LocateConfig) -> list[tuple[int, int]]:
    """The rows of the large and of the small resamples, and how many there are."""
    kept = config.windows * config.per_window
    return [
        (min(config.sample, kept), config.resamples),
        (min(config.stability_sample, kept), config.stability_resamples),
    ]


def _states(rows: int, dimensions: int) -> torch.Tensor:
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(0))


def _timed(rows: int, dimensions: int, one: Callable[[torch.Tensor], object]) -> float:
    states = _states(rows, dimensions)
    best = float("inf")
    for _ in range(_TIMES):
        start = time.thread_time()
        one(states)
        best = min(best, time.thread_time() - start)
    return best
