"""The one test whose p is printed keeps its size where curves over layers are smooth."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import spearmanr

from dihal_bench.core.errors import UserError
from dihal_bench.studies.ranking.agreement import kendall
from dihal_bench.studies.ranking.replication import sign_flip

BACKBONES, LAYERS, TIMES = 6, 31, 2000
Curves = NDArray[np.float64]


def autoregressive(generator: np.random.Generator, shape: tuple[int, ...]) -> Curves:
    steps = generator.normal(size=shape)
    steps[..., 0] /= np.sqrt(1 - 0.9**2)
    return lfilter([1.0], [1.0, -0.9], steps, axis=-1)


def random_walk(generator: np.random.Generator, shape: tuple[int, ...]) -> Curves:
    return generator.normal(size=shape).cumsum(-1)


def trend(generator: np.random.Generator, shape: tuple[int, ...]) -> Curves:
    slopes = generator.choice([-1.0, 1.0], size=(*shape[:-1], 1))
    return slopes * np.arange(shape[-1]) + generator.normal(size=shape)


def taus(a: Curves, b: Curves) -> Curves:
    """Kendall's tau over the last axis, of values without ties."""
    signs = [np.sign(x[..., :, None] - x[..., None, :]) for x in (a, b)]
    return (signs[0] * signs[1]).sum((-1, -2)) / (LAYERS * (LAYERS - 1))


@pytest.mark.parametrize("curves", [autoregressive, random_walk, trend])
def test_the_test_keeps_its_size(
    curves: Callable[[np.random.Generator, tuple[int, ...]], Curves],
) -> None:
    """Score and loss have nothing to do with each other; both are smooth, as depth is."""
    generator = np.random.default_rng(0)
    score, loss = (curves(generator, (TIMES, BACKBONES, LAYERS)) for _ in range(2))
    depth = np.broadcast_to(-np.arange(float(LAYERS)), loss.shape)
    assert taus(score, -loss)[0, 0] == pytest.approx(kendall(score[0, 0], -loss[0, 0]))
    differences = taus(score, -loss) - taus(depth, -loss)
    small = [sign_flip(own.tolist()).p <= 0.05 for own in differences]
    assert np.mean(small) <= 0.07


def test_correlations_of_layers_would_not_keep_theirs() -> None:
    """Why no p-value stands beside a rank correlation over the layers of one backbone."""
    generator = np.random.default_rng(1)
    for curves in (autoregressive, random_walk, trend):
        score, loss = (curves(generator, (300, LAYERS)) for _ in range(2))
        small = [spearmanr(a, b).pvalue <= 0.05 for a, b in zip(score, loss, strict=True)]
        assert np.mean(small) > 0.3


def test_p_is_the_share_of_sign_assignments() -> None:
    differences = [0.3, -0.1, 0.2, 0.4]
    means = [
        np.mean([s * d for s, d in zip(signs, differences, strict=True)])
        for signs in itertools.product((1, -1), repeat=4)
    ]
    found = sign_flip(differences)
    assert found.p == np.mean([m >= np.mean(differences) - 1e-12 for m in means]) == 2 / 16
    assert (found.mean, found.least) == (pytest.approx(0.2), 1 / 16)
    assert sign_flip([1.0] * 6).p == 1 / 64
    assert sign_flip([0.0] * 6).p == 1.0


@pytest.mark.parametrize("count", [0, 21])
def test_too_few_or_many_are_refused(count: int) -> None:
    with pytest.raises(UserError, match="takes 1 to 20"):
        sign_flip([1.0] * count)
