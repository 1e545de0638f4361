"""Layers whose geometry is known, as samples of activations."""

from pathlib import Path

import numpy as np
import torch

from dihal_bench.geometry.activations import LayerSample
from dihal_bench.geometry.locate import LocateConfig, sample_of
from dihal_bench.studies.protocol_grid.grid import Grid, grid_of
from dihal_bench.studies.protocol_grid.readings import read_all


def sample(states, inside=None):
    states = torch.as_tensor(states)
    inside = torch.ones(len(states), dtype=torch.bool) if inside is None else inside
    return LayerSample(states, states, inside, None, None)


def grid(layers, kept: Path, *, small=150, resamples=1, pairs=300, inside=None) -> Grid:
    """The grid of states by layer; the large resamples are of all rows."""
    samples = {layer: sample(states, inside) for layer, states in layers.items()}
    rows = len(next(iter(layers.values())))
    rng = np.random.default_rng(0)
    full = [rng.permutation(rows) for _ in range(resamples)]
    little = [rng.permutation(rows)[:small] for _ in range(resamples)]
    readings = read_all(samples, full, little, pairs=pairs, kept=kept)
    counts = {"resamples": resamples, "stability_resamples": resamples}
    own = LocateConfig(sample=rows, stability_sample=small, **counts)
    return grid_of(samples, readings, sample_of(own, rows))


def gaussian(n, variances, seed=0):
    """Rows of independent dimensions with these variances."""
    noise = np.random.default_rng(seed).normal(size=(n, len(variances)))
    return noise * np.sqrt(np.asarray(variances))


def clusters(n, d, scale, size=50, seed=0):
    """Points in tight, distant clusters; ``scale`` multiplies the clusters' extent alone."""
    rng = np.random.default_rng(seed)
    centres = 1000 * rng.normal(size=(n // size, d)).repeat(size, axis=0)
    return centres + scale * rng.normal(size=centres.shape)
