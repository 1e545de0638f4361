"""What the protocol grid is made of: every reading of every layer, in every resample and view.

A view is a choice of tokens and of a space. All views of a layer read the same subsamples, so that
they differ in the view alone; a view that keeps the same tokens as another is not read twice.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dihal_bench.core import kept
from dihal_bench.core.progress import progress
from dihal_bench.geometry.anatomy import CURVATURES, RANKS, anatomy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.core.progress import Progress
    from dihal_bench.geometry.activations import LayerSample
    from dihal_bench.geometry.anatomy import MatrixStatistics

    Array = NDArray[np.float64]
    View = tuple[str, str]

OUTLIER = 10.0  # times the median norm: Sun et al. (arXiv 2402.17762) see 100 to 1000 times
NEIGHBOURS = (10, 20, 50, 100)
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_CURVATURES = tuple(itertools.product(CURVATURES, NEIGHBOURS))
_COLUMNS = (*_CURVATURES, *RIDGES, *RANKS, "duplicates")


def _everything(states: Tensor, inside: Tensor) -> Tensor:
    return torch.ones_like(inside)


def _inside(states: Tensor, inside: Tensor) -> Tensor:
    return inside


def _usual(states: Tensor, inside: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(states, dim=1)
    return norm <= OUTLIER * norm.median()


def _raw(states: Tensor) -> Tensor:
    return states


def _standardised(states: Tensor) -> Tensor:
    """Per dimension, by the statistics of the view's own tokens."""
    spread = states.std(dim=0)
    return (states - states.mean(dim=0)) / spread.where(spread > 0, 1)


def _rms(states: Tensor) -> Tensor:
    """As the norm of a block has them, without its gains."""
    return states / states.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-12)


TOKENS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "all": _everything,
    "without position 0": _inside,
    "without outliers": _usual,
}
SPACES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "raw": _raw,
    "standardised": _standardised,
    "rms": _rms,
}


@dataclass(frozen=True)
class GridMeasurements:
    """The readings of all views.

    Attributes:
        layers: the candidates, ascending.
        full: how many of the resamples, the first ones, are large; the others are small.
        tables: (tokens, space) -> [resamples, layers, readings].
    """

    layers: list[int]
    full: int
    tables: Mapping[View, Array]

    def of(self, view: View, reading: object) -> Array:
        """Return one reading of one view, [resamples, layers].

        Args:
            view: (tokens, space).
            reading: a curvature's (kind, k), a ridge, the name of a rank, or "duplicates".
        """
        return self.tables[view][:, :, _COLUMNS.index(reading)]


def read_all(
    samples: Mapping[int, LayerSample],
    full: Sequence[NDArray[np.int64]],
    small: Sequence[NDArray[np.int64]],
    *,
    pairs: int,
    kept: Path,
) -> GridMeasurements:
    """Take all readings, or those that are missing in ``kept``.

    Args:
        samples: layer -> its sampled activations; rows are the same tokens in all.
        full: rows of each large resample.
        small: rows of each small one.
        pairs: of the stiffness.
        kept: folder, a file per layer and view; the caller vouches that it is of these samples.

    Raises:
        UserError: too few tokens are left for the largest neighbourhood.
    """
    layers = sorted(samples)
    subsets = [(rows, seed) for some in (full, small) for seed, rows in enumerate(some)]
    tables: dict[View, list[Array]] = {view: [] for view in itertools.product(TOKENS, SPACES)}
    total = len(layers) * len(tables) * len(subsets)
    with progress("grid", total, unit="matrices") as bar, _threads() as threads:
        reader = _Reader(subsets, pairs, threads, bar)
        for layer in layers:
            for view, table in _views(samples[layer], reader, kept / f"layer-{layer}"):
                tables[view].append(table)
    stacked = {view: np.stack(own, axis=1) for view, own in tables.items()}
    return GridMeasurements(layers, len(full), stacked)


def _views(sample: LayerSample, reader: _Reader, kept: Path) -> Iterator[tuple[View, Array]]:
    """Yield every view of a layer with its table, [resamples, readings]."""
    masks = {name: choose(sample.states, sample.inside) for name, choose in TOKENS.items()}
    for space, transform in SPACES.items():
        found: dict[str, Array] = {}
        for tokens, mask in masks.items():
            same = next((name for name in found if torch.equal(masks[name], mask)), None)
            if same is None:
                states = sample.states.to(torch.float64, copy=True)
                states[mask] = transform(states[mask])
                path = kept / f"{tokens.replace(' ', '-')}-{space}.safetensors"
                found[tokens] = reader.table(states, mask, path)
            else:
                found[tokens] = found[same]
            reader.bar.update(0 if same is None else len(reader.subsets))
            yield (tokens, space), found[tokens]


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """A thread per core, each of whose libraries use one: small matrices gain most from that."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Reader:
    """What reads the resamples of one view.

    Attributes:
        subsets: the rows and the seed of each.
        pairs: of the stiffness.
        threads: where they are read.
        bar: is told of each.
    """

    subsets: Sequence[tuple[NDArray[np.int64], int]]
    pairs: int
    threads: ThreadPoolExecutor
    bar: Progress

    def table(self, states: Tensor, mask: Tensor, path: Path) -> Array:
        """Return all readings of the masked rows of ``states``, [resamples, readings]."""
        if kept.usable(path):
            self.bar.update(len(self.subsets))
            table: Array = kept.read_tensors(path).tensors["readings"].numpy()
            return table

        def read(subset: tuple[NDArray[np.int64], int]) -> MatrixStatistics:
            rows, seed = torch.from_numpy(subset[0]), subset[1]
            own = states[rows[mask[rows]]]
            return anatomy(own, neighbours=NEIGHBOURS, ridges=RIDGES, pairs=self.pairs, seed=seed)

        taken = []
        for found in self.threads.map(read, self.subsets):
            taken.append(_row(found))
            self.bar.update()
        table = np.array(taken)
        kept.write_tensors(path, {"readings": torch.from_numpy(table)})
        return table


def _row(found: MatrixStatistics) -> list[float]:
    curvatures = [found.curvature[key] for key in _CURVATURES]
    stiffnesses = [found.stiffness[rho] for rho in RIDGES]
    return [*curvatures, *stiffnesses, *(found.rank[name] for name in RANKS), found.duplicates]
