"""The readings against closed forms, against the proxies, and against a slow reference."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dihal_bench.geometry import layer_proxies, neighbourhoods, sample_pairs, zscore
from dihal_bench.geometry.anatomy import anatomy, ranks
from dihal_bench.geometry.spectrum import gram_quotients

from .planted import clusters, gaussian
from .reference import distinct_rows
from .test_proxies import CASES, exact_spectrum

SIZES = (3, 7, 20)


def local_reference(points, i, k):
    """The largest and the total variance of the k nearest neighbours of one point."""
    distances = ((points - points[i]) ** 2).sum(axis=1)
    others = [j for j in np.argsort(distances, kind="stable") if j != i][:k]
    spectrum = np.linalg.eigvalsh(np.cov(points[others].T).reshape(points.shape[1], -1))
    return spectrum[-1], spectrum.sum()


@pytest.mark.parametrize("few", [0, 256], ids=["looked up", "differences"])
@pytest.mark.parametrize("shape", [(150, 24), (80, 120)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_curvature_agrees_with_the_reference(monkeypatch, case, shape, few):
    monkeypatch.setattr(neighbourhoods, "_FEW", few)
    h = CASES[case](*shape)
    points = distinct_rows(h)
    found = anatomy(h, neighbours=SIZES, ridges=(1e-3,), pairs=10)
    for k in SIZES:
        spectra = np.array([local_reference(points, i, k) for i in range(len(points))])
        expected = np.median(1 / spectra, axis=0)
        assert found.curvature["largest", k] == pytest.approx(expected[0], rel=1e-6)
        assert found.curvature["trace", k] == pytest.approx(expected[1], rel=1e-6)


@pytest.mark.parametrize("shape", [(200, 3), (120, 150)], ids=str)
def test_ties_inside_the_largest_neighbourhood_go_to_the_lower_row(shape):
    h = np.random.default_rng(0).integers(-3 if shape[1] == 3 else 0, 4, size=shape).astype(float)
    h[:, 3:] *= np.random.default_rng(1).random(shape[1] - 3) < 0.02
    together = anatomy(h, neighbours=SIZES, ridges=(1e-3,), pairs=10)
    for k in SIZES:
        alone = layer_proxies(h, neighbours=k, pairs=10)
        assert together.curvature["largest", k] == pytest.approx(alone.curvature, rel=1e-9)


@pytest.mark.parametrize("shape", [(150, 24), (80, 120)], ids=str)
@pytest.mark.parametrize("rho", [1e-6, 1e-1])
def test_the_papers_readings_are_the_proxies(shape, rho):
    h = gaussian(shape[0], 1 / np.arange(1, shape[1] + 1))
    h = np.concatenate([h, h[:4]])
    found = anatomy(h, neighbours=(10, 20), ridges=(1e-3, rho), pairs=500, seed=3)
    expected = layer_proxies(h, neighbours=20, ridge=rho, pairs=500, seed=3)
    assert found.curvature["largest", 20] == pytest.approx(expected.curvature, rel=1e-9)
    assert found.stiffness[rho] == pytest.approx(expected.stiffness, rel=1e-9)
    assert found.rank["stable"] == pytest.approx(expected.effective_rank, rel=1e-9)
    assert found.rank["participation"] == pytest.approx(expected.participation_ratio, rel=1e-9)
    assert (found.duplicates, found.n, found.d) == (4, *shape)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40).filter(lambda own: max(own) > 1e-3))
def test_ranks_ascend_from_one_to_the_number_of_directions(spectrum):
    found = ranks(torch.tensor(sorted(spectrum), dtype=torch.float64))
    values = [1, found["stable"], found["participation"], found["entropy"], len(spectrum)]
    assert all(low <= high * (1 + 1e-9) for low, high in pairwise(values))


@pytest.mark.parametrize("shape", [(400, 40), (40, 400)], ids=str)
def test_ranks_of_a_known_spectrum(shape):
    count = min(shape[0] - 1, shape[1])
    variances = np.zeros(min(shape))
    variances[:count] = 1 / np.arange(1, count + 1)
    share = variances[:count] / variances.sum()
    h = exact_spectrum(*shape, variances)
    found = anatomy(h, neighbours=(5,), ridges=(1e-3,), pairs=10).rank
    assert found["stable"] == pytest.approx(1 / share.max(), rel=1e-9)
    assert found["participation"] == pytest.approx(1 / (share**2).sum(), rel=1e-9)
    assert found["entropy"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_equal_directions_have_equal_ranks():
    found = ranks(torch.full((7,), 3.0, dtype=torch.float64))
    assert found == pytest.approx(dict.fromkeys(("stable", "participation", "entropy"), 7))


def test_curvature_is_the_inverse_square_of_the_clusters_extent():
    scales = (2.0, 1.0, 0.25)
    found = [
        anatomy(clusters(300, 12, scale), neighbours=(10, 20), ridges=(1e-3,), pairs=10)
        for scale in scales
    ]
    for key in found[0].curvature:
        products = [own.curvature[key] * scale**2 for own, scale in zip(found, scales, strict=True)]
        assert products == pytest.approx([products[0]] * 3, rel=1e-6)
    ranks_of_all = [own.rank["stable"] for own in found]
    assert ranks_of_all == pytest.approx([ranks_of_all[0]] * 3, rel=1e-2)  # the centres decide it


@pytest.mark.parametrize("rho", [1e-6, 1e-1])
@pytest.mark.parametrize("variance", [0.25, 4.0])
def test_stiffness_of_isotropic_layers_is_the_inverse_variance(variance, rho):
    h = gaussian(4000, [variance] * 10)
    found = anatomy(h, neighbours=(5,), ridges=(rho,)).stiffness[rho]
    assert found == pytest.approx(1 / (variance * (1 + rho)), rel=0.01)


def test_stiffness_is_that_of_the_true_precision():
    variances, rho = 1 / np.arange(1, 13.0), 1e-2
    rng = np.random.default_rng(7)
    u = rng.normal(size=(200_000, 12)) * np.sqrt(variances)
    precision = 1 / (variances + rho * variances.mean())
    expected = np.median((u**2 * precision).sum(axis=1) / (u**2).sum(axis=1))
    found = anatomy(gaussian(6000, variances), neighbours=(5,), ridges=(rho,), pairs=50_000)
    assert found.stiffness[rho] == pytest.approx(expected, rel=0.02)


def test_planted_order_is_found_by_every_reading():
    # From the first layer to the third, clusters widen and spread over more directions.
    layers = [
        clusters(400, 24, 1.0) * np.r_[np.ones(4), np.full(20, 0.02)],
        clusters(400, 24, 3.0) * np.r_[np.ones(8), np.full(16, 0.05)],
        clusters(400, 24, 9.0) * np.r_[np.ones(20), np.full(4, 0.1)],
    ]
    found = [anatomy(h, neighbours=(10, 20), ridges=(1e-6, 1e-3, 1e-1)) for h in layers]
    for key in found[0].curvature:
        assert np.all(np.diff([own.curvature[key] for own in found]) < 0), key
    for rho in found[0].stiffness:
        assert np.all(np.diff([own.stiffness[rho] for own in found]) < 0), rho
    for name in found[0].rank:
        assert np.all(np.diff([own.rank[name] for own in found]) > 0), name
    assert zscore([own.curvature["largest", 20] for own in found]).argmax() == 0


@pytest.mark.parametrize("n", [30, 90])
def test_without_ridge_the_form_in_sample_is_the_same_for_every_pair(n):
    d, rho = 200, 1e-10
    h = torch.from_numpy(gaussian(n, 1 / np.arange(1, d + 1)))
    centred = h - h.mean(dim=0)
    gram = centred @ centred.T
    pairs = torch.from_numpy(sample_pairs(n, 4000, seed=0))
    square = (h[pairs[:, 0]] - h[pairs[:, 1]]).square().sum(dim=1)
    form = (n - 1) * gram_quotients(gram, rho * float(gram.trace()) / d, pairs) * square
    assert form.numpy() == pytest.approx(2 * (n - 1), rel=1e-6)
    with_ridge = (n - 1) * gram_quotients(gram, 1.0 * float(gram.trace()) / d, pairs) * square
    assert float(with_ridge.max() / with_ridge.min()) > 1.05
