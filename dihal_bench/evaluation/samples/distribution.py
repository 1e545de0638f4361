"""Distances between a set of samples and real text, as distributions."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.samples.features import standardised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dihal_bench.evaluation.intervals import Array

FEW = 1000  # samples a side, under which MAUVE is biased upwards (its authors ask for thousands)
_PER_BUCKET, _MOST_BUCKETS = 10, 500  # samples, buckets: the defaults of mauve-text
_EPSILON = 1e-9  # of a distance: a permutation that ties is as far


@dataclass(frozen=True)
class Spread:
    """A value over several seeds: their mean, least and largest."""

    value: float
    lo: float
    hi: float


def mauve(samples: Array, reference: Array, *, seeds: Sequence[int]) -> Spread:
    """Return MAUVE (Pillutla et al., 2021), which depends on the seed of its k-means.

    Args:
        samples: a judge's features of them, [n, D].
        reference: of real text, [m, D].
        seeds: of k-means.

    Raises:
        UserError: the package mauve-text is not installed, or there are too few samples.
    """
    try:
        from mauve import compute_mauve
    except ImportError as error:
        raise UserError(
            "MAUVE needs the package mauve-text: pip install 'dihal-bench[eval]', or leave mauve "
            "out of the metrics."
        ) from error
    least = min(len(samples), len(reference))
    if least < 2 * _PER_BUCKET:
        raise UserError(
            f"MAUVE needs {2 * _PER_BUCKET} samples a side at least, and there are {least}."
        )
    values = []
    for seed in seeds:
        with warnings.catch_warnings(), _silent():
            warnings.simplefilter("ignore")  # of scikit-learn, of duplicates among features
            found = compute_mauve(
                p_features=np.ascontiguousarray(reference, dtype=np.float32),
                q_features=np.ascontiguousarray(samples, dtype=np.float32),
                num_buckets=min(_MOST_BUCKETS, least // _PER_BUCKET),
                seed=seed,
                device_id=-1,
                verbose=False,
            )
        values.append(float(found.mauve))
    return Spread(float(np.mean(values)), min(values), max(values))


@contextmanager
def _silent() -> Iterator[None]:
    """Hide what a C++ library writes to standard error.

    Faiss asks for 39 points per cluster at every call; mauve-text's default is 20.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@dataclass(frozen=True)
class Energy:
    """An energy distance.

    Attributes:
        value: 2 E|X-Y| - E|X-X'| - E|Y-Y'|, unbiased, so that it may fall below 0.
        p: share of random divisions of both sets together that lie as far apart.
    """

    value: float
    p: float


def energy_distance(samples: Array, reference: Array, *, permutations: int, seed: int) -> Energy:
    """Return the energy distance (Székely and Rizzo, 2013) of features, with a permutation test.

    Distances are Euclidean between features in units of the reference's standard deviations; for
    the test in those of both sets together, which no division of them changes.

    Args:
        samples: [n, D], n at least 2.
        reference: [m, D], m at least 2.
        permutations: of the test.
        seed: of the permutations.
    """
    n, m = len(samples), len(reference)
    if min(n, m) < 2:
        raise UserError(f"an energy distance needs 2 samples a side; there are {n} and {m}.")
    generator = np.random.default_rng(seed)
    first = np.zeros((permutations + 1, n + m))
    first[0, :n] = 1
    for row in first[1:]:
        row[generator.permutation(n + m)[:n]] = 1
    value = _energies(_distances(*standardised(samples, reference)), first[:1])[0]
    if not permutations:
        return Energy(float(value), 1.0)
    both = np.concatenate((samples, reference))
    values = _energies(_distances(standardised(both, both)[0]), first)
    beyond = int((values[1:] >= values[0] - _EPSILON).sum())
    return Energy(float(value), (1 + beyond) / (1 + permutations))


def _distances(*parts: Array) -> Array:
    points = np.concatenate(parts)
    found: Array = cdist(points, points)
    return found


def _energies(distances: Array, first: Array) -> Array:
    """Return the distance of every division [R, n + m] of points into two sets."""
    total = float(distances.sum())
    to_first = first @ distances  # (R, n + m)
    within = (to_first * first).sum(1)
    across = to_first.sum(1) - within
    rest = total - within - 2 * across
    n = first.sum(1)
    m = first.shape[1] - n
    energies: Array = 2 * across / (n * m) - within / (n * (n - 1)) - rest / (m * (m - 1))
    return energies


def typicality(samples: Array, reference: Array) -> Array:
    """Return per sample the share of real texts that lie as far from their mean, [n].

    Mahalanobis distances of features under the mean and the shrunk covariance (Ledoit and Wolf,
    2004) of one half of the reference, beside those of the other half, which it does not know
    either; the mean of both ways. Exchangeable samples have 0.5 in the mean, atypical ones less.

    Args:
        samples: [n, D].
        reference: [m, D], m at least 4.
    """
    from sklearn.covariance import LedoitWolf

    shares = np.zeros(len(samples))
    for known, other in ((reference[::2], reference[1::2]), (reference[1::2], reference[::2])):
        own, real = standardised(np.concatenate((samples, other)), known)
        fitted = LedoitWolf().fit(real)
        distances = fitted.mahalanobis(own)
        near, far = np.sort(distances[len(samples) :]), distances[: len(samples)]
        shares += 1 - np.searchsorted(near, far) / len(near)
    return shares / 2
