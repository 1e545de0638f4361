"""The protocol grid: which layer is selected under other definitions that are as good.

Tokens {all, without position 0, without outliers} x space {raw, standardised, RMS-normalised} x
curvature {1 / largest, 1 / total local variance} x rank {tr / lambda_max, participation ratio,
exponential of the spectrum's entropy} x neighbours x ridge. DiHAL (arXiv 2605.14368) fixes one of
these protocols; a layer that few others select is a finding of that protocol, not of the model.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from dihal_bench.core.errors import UserError
from dihal_bench.geometry.activations import sample_activations
from dihal_bench.geometry.anatomy import CURVATURES, RANKS
from dihal_bench.geometry.locate import Sample, draw_subsets, sample_of
from dihal_bench.geometry.score import zscore
from dihal_bench.studies.protocol_grid.readings import (
    NEIGHBOURS,
    OUTLIER,
    RIDGES,
    SPACES,
    TOKENS,
    GridMeasurements,
    read_all,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dihal_bench.data.tokens import Text
    from dihal_bench.geometry.activations import LayerSample
    from dihal_bench.geometry.cache import CacheConfig
    from dihal_bench.geometry.locate import LocateConfig
    from dihal_bench.models.model import Backbone

    Array = NDArray[np.float64]

AXES: Mapping[str, tuple[Any, ...]] = {
    "tokens": tuple(TOKENS),
    "space": tuple(SPACES),
    "curvature": CURVATURES,
    "rank": RANKS,
    "neighbours": NEIGHBOURS,
    "ridge": RIDGES,
}
TERMS = {"curvature": 1, "stiffness": 1, "rank": -1}  # of the score, with their signs
_SPARE = 1.5  # tokens of the smallest resample, in units of the largest neighbourhood


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One choice on every axis; by default DiHAL's.

    Attributes:
        tokens: key of ``TOKENS``.
        space: key of ``SPACES``.
        curvature: one of ``CURVATURES``.
        rank: one of ``RANKS``.
        neighbours: k.
        ridge: rho.
    """

    tokens: str = "all"
    space: str = "raw"
    curvature: str = "largest"
    rank: str = "stable"
    neighbours: int = 20
    ridge: float = 1e-3

    def differences(self, other: Protocol) -> list[str]:
        """Return the axes on which two protocols differ."""
        return [axis for axis in AXES if getattr(self, axis) != getattr(other, axis)]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one protocol selects.

    Attributes:
        protocol: which.
        scores: S of the medians over the large resamples, one per layer.
        selected: the layer with the highest; of equal ones the lowest.
        share: of the large resamples whose own scores select it.
        small_share: the same of the small ones.
        rank_spread: standard deviation of a layer's rank over the large resamples, the mean over
            layers.
        small_rank_spread: the same over the small ones.
        without: term of the score -> the layer that is selected when it is left out.
    """

    protocol: Protocol
    scores: tuple[float, ...]
    selected: int
    share: float
    small_share: float
    rank_spread: float
    small_rank_spread: float
    without: dict[str, int]

    @property
    def drivers(self) -> list[str]:
        """The terms without which another layer is selected."""
        return [term for term, layer in self.without.items() if layer != self.selected]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, the protocol's beside the others."""
        plain = asdict(self)
        protocol: dict[str, Any] = plain.pop("protocol")
        return protocol | plain | {"drivers": self.drivers}


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """What a layer's sampled activations are like, whatever the protocol.

    Attributes:
        layer: which.
        duplicates: tokens of a large resample that equal an earlier one, the median share.
        outliers: share of tokens whose norm exceeds ``OUTLIER`` times the median norm.
        largest_norm: the largest norm over the median one.
        largest_component: the largest magnitude of a component over the median one; massive
            activations are those beyond 1,000.
    """

    layer: int
    duplicates: float
    outliers: float
    largest_norm: float
    largest_component: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All cells, and what they were made of.

    Attributes:
        layers: the candidates, with what is particular to each.
        cells: one per protocol, the last axis fastest.
        sample: how many tokens a resample had, of how many kept.
        readings: of every resample; `draws` makes scores of them.
    """

    layers: list[LayerFacts]
    cells: list[Cell]
    sample: Sample
    readings: GridMeasurements = field(repr=False, compare=False)

    @property
    def selections(self) -> Counter[int]:
        """How many cells select each layer."""
        return Counter(cell.selected for cell in self.cells)

    def cell(self, protocol: Protocol) -> Cell:
        """Return a protocol's cell."""
        return next(cell for cell in self.cells if cell.protocol == protocol)

    @property
    def paper(self) -> Cell:
        """The cell that is DiHAL's."""
        return self.cell(Protocol())

    def neighbours(self, cell: Cell) -> list[Cell]:
        """Return the cells whose protocol differs on a single axis."""
        return [own for own in self.cells if len(own.protocol.differences(cell.protocol)) == 1]

    def scores(self, protocol: Protocol, layers: Sequence[int]) -> Array:
        """Return a protocol's scores of some of the candidates, standardised over these, [L]."""
        columns = [self.readings.layers.index(layer) for layer in layers]
        full = self.readings.full
        return _sum(
            {
                term: zscore(np.median(self.readings.of(*key)[:full, columns], axis=0))
                for term, key in _keys(protocol).items()
            }
        )

    def draws(self, protocol: Protocol, *, small: bool = False) -> Array:
        """Return a protocol's scores within each resample, [resamples, layers]."""
        parts = {term: _rowwise(self.readings.of(*key)) for term, key in _keys(protocol).items()}
        full = self.readings.full
        return _sum(parts)[full:] if small else _sum(parts)[:full]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the readings."""
        return {
            "axes": {axis: list(values) for axis, values in AXES.items()},
            "layers": [asdict(layer) for layer in self.layers],
            "cells": [cell.to_dict() for cell in self.cells],
            "sample": dict(self.sample),
        }


def check_grid(config: LocateConfig, kept: int | None = None) -> None:
    """Refuse resamples in which the largest neighbourhood would be most of all tokens.

    Args:
        config: settings.
        kept: tokens that resamples are drawn from; None: as many as the settings allow.

    Raises:
        UserError: they are too small.
    """
    least = math.ceil(_SPARE * max(NEIGHBOURS))
    large = f"--grid has neighbourhoods of {max(NEIGHBOURS)} tokens"
    for key in ("sample", "stability_sample"):
        if (size := getattr(config, key)) < least:
            raise UserError(
                f"{large}, but a resample has only {size}; give locate.{key} at least {least}."
            )
    kept = config.windows * config.per_window if kept is None else kept
    if kept < least:
        raise UserError(
            f"{large}, but only {kept} are kept (locate.windows={config.windows} of "
            f"locate.per_window={config.per_window} tokens); give locate.windows at least "
            f"{math.ceil(least / config.per_window)}, and enough text for that."
        )


def describe_grid(config: LocateConfig) -> str:
    """Return what a grid is made of, in one line."""
    protocols = math.prod(len(values) for values in AXES.values())
    return (
        f"{protocols:,} protocols, from {len(TOKENS) * len(SPACES)} views of each layer in "
        f"{config.resamples} resamples of {config.sample:,} tokens and "
        f"{config.stability_resamples} of {config.stability_sample:,}"
    )


def locate_grid(
    backbone: Backbone,
    data: Text,
    config: LocateConfig,
    *,
    seed: int,
    kept: Path,
    cache: CacheConfig | None = None,
    autocast: bool = False,
) -> Grid:
    """Score the candidate layers 1..N-1 under every protocol, on the tokens that `locate` draws.

    Args:
        backbone: the model, of at least two blocks.
        data: text.
        config: settings; those that are axes of the grid do not matter.
        seed: of all sampling.
        kept: folder of the readings; those it holds already are not taken again.
        cache: where activations are kept, to be read instead of computed another time.
        autocast: as `locate` takes it.

    Raises:
        UserError: the resamples are too small for the largest neighbourhood.
    """
    samples = sample_activations(
        backbone,
        data,
        list(range(1, backbone.blocks)),
        windows=config.windows,
        per_window=config.per_window,
        residual="none",
        seed=seed,
        cache=cache,
        autocast=autocast,
    )
    pool = len(next(iter(samples.values())).states)
    sample = sample_of(config, pool)
    size, small = sample["tokens"], sample["stability_tokens"]
    check_grid(config, pool)
    full = draw_subsets(pool, size, config.resamples, seed + 1)
    little = draw_subsets(pool, small, config.stability_resamples, seed + 2)
    readings = read_all(samples, full, little, pairs=config.pairs, kept=kept)
    return grid_of(samples, readings, sample)


def grid_of(samples: Mapping[int, LayerSample], readings: GridMeasurements, sample: Sample) -> Grid:
    """Make the cells of readings that were taken.

    Args:
        samples: layer -> its sampled activations.
        readings: of these samples.
        sample: what the resamples were of.
    """
    duplicates = np.median(readings.of(("all", "raw"), "duplicates")[: readings.full], axis=0)
    return Grid(
        layers=[
            _facts(layer, samples[layer], duplicates[i] / sample["tokens"])
            for i, layer in enumerate(readings.layers)
        ],
        cells=_cells(readings),
        sample=sample,
        readings=readings,
    )


def _facts(layer: int, sample: LayerSample, duplicates: float) -> LayerFacts:
    norm, magnitude = sample.states.norm(dim=1), sample.states.abs()
    return LayerFacts(
        layer=layer,
        duplicates=float(duplicates),
        outliers=float((norm > OUTLIER * norm.median()).double().mean()),
        largest_norm=float(norm.max() / norm.median()),
        largest_component=float(magnitude.max() / magnitude.median()),
    )


def _keys(protocol: Protocol) -> dict[str, tuple[tuple[str, str], object]]:
    """Which view and reading each term of the score is."""
    view = protocol.tokens, protocol.space
    return {
        "curvature": (view, (protocol.curvature, protocol.neighbours)),
        "stiffness": (view, protocol.ridge),
        "rank": (view, protocol.rank),
    }


def _cells(readings: GridMeasurements) -> list[Cell]:
    full = readings.full

    @cache
    def standardised(view: tuple[str, str], reading: object) -> tuple[Array, Array]:
        """Z-scores of medians over large resamples, [layers]; within each, [resamples, layers]."""
        table = readings.of(view, reading)
        return zscore(np.median(table[:full], axis=0)), _rowwise(table)

    cells = []
    for values in itertools.product(*AXES.values()):
        protocol = Protocol(**dict(zip(AXES, values, strict=True)))
        terms = {term: standardised(*key) for term, key in _keys(protocol).items()}
        medians = {term: own[0] for term, own in terms.items()}
        draws = _sum({term: own[1] for term, own in terms.items()})
        cells.append(_cell(protocol, readings.layers, medians, draws[:full], draws[full:]))
    return cells


def _cell(
    protocol: Protocol, layers: list[int], medians: Mapping[str, Array], full: Array, small: Array
) -> Cell:
    scores = _sum(medians)
    best = int(scores.argmax())
    without = {
        term: _sum({name: z for name, z in medians.items() if name != term}) for term in TERMS
    }
    return Cell(
        protocol=protocol,
        scores=tuple(scores.tolist()),
        selected=layers[best],
        share=float((full.argmax(axis=1) == best).mean()),
        small_share=float((small.argmax(axis=1) == best).mean()),
        rank_spread=_rank_spread(full),
        small_rank_spread=_rank_spread(small),
        without={term: layers[int(rest.argmax())] for term, rest in without.items()},
    )


def _rowwise(table: Array) -> Array:
    return np.stack([zscore(row) for row in table])


def _sum(terms: Mapping[str, Array]) -> Array:
    """The score of standardised terms, over whatever axes they have."""
    total: Array = sum(TERMS[term] * z for term, z in terms.items())  # type: ignore[assignment]
    return total


def _rank_spread(draws: Array) -> float:
    """Mean over layers of the standard deviation of their rank, from [resamples, layers]."""
    return float(stats.rankdata(-draws, axis=1).std(axis=0).mean())
