"""Subsamples of a pool: the same proxies as of each subsample alone, from one Gram matrix."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.geometry import layer_proxies, pool, proxies
from dihal_bench.geometry.pool import resampled_proxies, shares

from .test_proxies import CASES, VALUES, activations, crowds, with_outlier


def subsets(p, n, count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.permutation(p)[:n] for _ in range(count)]


def products(monkeypatch):
    """The shapes that are multiplied from now on."""
    shapes, real = [], proxies.self_product

    def counted(x):
        shapes.append(tuple(x.shape))
        return real(x)

    for module in (proxies, pool):
        monkeypatch.setattr(module, "self_product", counted)
    return shapes


def alone(h, drawn, **options):
    return [layer_proxies(h[subset], seed=seed, **options) for seed, subset in enumerate(drawn)]


def assert_equal(found, expected, rel):
    for ours, theirs in zip(found, expected, strict=True):
        for name in VALUES:
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=rel), name
        assert (ours.duplicates, ours.n, ours.d) == (theirs.duplicates, theirs.n, theirs.d)


@pytest.fixture
def quick(monkeypatch):
    """Looking inner products up costs nothing, so that small pools share them."""
    monkeypatch.setattr(pool, "_LOOKUP", 0)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("d", [300, 24])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_each_subset_alone(case, d, monkeypatch):
    h = CASES[case](90, d)
    drawn = subsets(len(h), 60, 8)
    expected = alone(h, drawn)
    shapes = products(monkeypatch)
    found = list(resampled_proxies(h, drawn))
    assert shapes[0] == h.shape
    if case != "outlier":  # which some subsets lack
        assert all(shape == (d, shape[1]) for shape in shapes[1:])  # covariances, with n >= d
        assert len(shapes) == (1 if d > 60 else 9)
    assert_equal(found, expected, 1e-9)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_equal_in_every_precision_with_repeats_and_an_outlier(dtype):
    h = with_outlier(90, 200)
    h = torch.from_numpy(np.concatenate([h[:40], h, h[20:60]])).to(dtype)
    drawn = subsets(len(h), 120, 3)
    found = list(resampled_proxies(h, drawn, neighbours=5))
    assert all(row.duplicates > 0 for row in found)
    assert_equal(found, alone(h, drawn, neighbours=5), 1e-9)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("d", [200, 20])
def test_an_outlier_that_a_subset_lacks_costs_no_digits(d):
    """The pool's mean lies far from the subset's, whose neighbours are close together."""
    h = crowds(120, d, distance=1e-3, crowd=30)
    h[7] += 1e6
    drawn = [np.array([i for i in subset if i != 7]) for subset in subsets(120, 110, 3)]
    assert_equal(list(resampled_proxies(h, drawn)), alone(h, drawn), 1e-9)


@pytest.mark.usefixtures("quick")
def test_options_reach_the_proxies():
    h = activations(60, 150)
    drawn = subsets(60, 50, 3)
    options = {"neighbours": 4, "ridge": 0.3, "pairs": 70}
    assert_equal(list(resampled_proxies(h, drawn, **options)), alone(h, drawn, **options), 1e-9)


def test_where_a_pool_does_not_share_nothing_changes(monkeypatch):
    h, drawn = activations(90, 40), subsets(90, 60, 9)
    expected = alone(h, drawn, neighbours=5)
    shapes = products(monkeypatch)
    assert list(resampled_proxies(h, drawn, neighbours=5)) == expected
    assert h.shape not in shapes


def test_a_pool_shares_where_that_saves_work_and_memory_allows_it(monkeypatch):
    monkeypatch.setattr(pool, "_memory", lambda: 2**35)
    assert shares((5120, 576), [3000] * 10)
    assert not shares((5120, 576), [3000])  # one alone
    assert not shares((5120, 128), [3000] * 10)  # formed as fast as looked up
    assert not shares((5120, 4096), [500] * 10)  # small beside the pool
    assert shares((24_000, 4096), [3000] * 100)
    monkeypatch.setattr(pool, "_memory", lambda: 2**34)
    assert not shares((24_000, 4096), [3000] * 100)  # 4.6 GB


@pytest.mark.usefixtures("quick")
def test_larger_subsets_beside_smaller_ones():
    h = activations(200, 100)
    drawn = [*subsets(200, 90, 8), *subsets(200, 150, 2)]
    assert_equal(list(resampled_proxies(h, drawn)), alone(h, drawn), 1e-9)


@pytest.mark.usefixtures("quick")
def test_repeats_are_judged_within_the_subset():
    h = activations(80, 200)
    h[40:] = h[:40] + 0.0
    drawn = [np.arange(40), np.arange(40, 80), np.arange(20, 60)[::-1].copy()]
    found = list(resampled_proxies(h, drawn))
    assert [row.duplicates for row in found] == [0, 0, 0]
    assert_equal(found[1:2], [replace(layer_proxies(h[:40], seed=1))], 1e-9)


@pytest.mark.parametrize(
    ("h", "options", "word"),
    [
        (np.full((50, 90), np.nan), {}, "NaN"),
        (activations(50, 90), {"neighbours": 1}, "neighbours=1"),
        (activations(50, 90), {"neighbours": 39}, "sample more tokens"),
        (activations(50, 90), {"ridge": 1e-19}, "larger"),
    ],
)
def test_errors_are_those_of_one_sample(h, options, word):
    with pytest.raises(UserError, match=word):
        list(resampled_proxies(h, subsets(50, 40, 4), **options))
