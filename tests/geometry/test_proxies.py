from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dihal_bench.core.errors import UserError
from dihal_bench.geometry import layer_proxies, proxies, sample_pairs, spectrum
from dihal_bench.geometry.neighbourhoods import _smallest, nearest_neighbours
from dihal_bench.geometry.spectrum import largest_eigenvalue

from .reference import layer_proxies_reference

VALUES = ("curvature", "stiffness", "effective_rank", "participation_ratio")


def activations(n, d, seed=0, decay=0.5):
    """Gaussian rows with a power-law spectrum in a random basis, as a layer's are."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -decay @ basis


def exact_spectrum(n, d, eigenvalues, seed=0):
    """Rows whose sample covariance (over n - 1) has exactly these eigenvalues."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(n, d))
    left = np.linalg.qr(raw - raw.mean(axis=0))[0]
    return left * np.sqrt((n - 1) * np.asarray(eigenvalues))


def assert_agree(found, expected, tolerance=1e-6):
    for name in VALUES:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=tolerance), name
    assert (found.duplicates, found.n, found.d) == (expected.duplicates, expected.n, expected.d)


def near_duplicates(n, d, distance=1e-4):
    h = activations(n, d)
    h[n // 2 :] = (
        h[: n - n // 2] + distance * np.random.default_rng(1).normal(size=(n - n // 2, d)) / d**0.5
    )
    return h


def crowds(n, d, distance=1e-4, crowd=30):
    """Every point has more than k neighbours that are nearly equal to it."""
    centres = 10 * activations(n // crowd, d).repeat(crowd, axis=0)
    return centres + distance * np.random.default_rng(1).normal(size=centres.shape) / d**0.5


def with_outlier(n, d):
    h = activations(n, d)
    h[n // 3] *= 1000
    return h


def with_constants(n, d):
    h = activations(n, d)
    h[:, ::3] = 7.5
    return h


def duplicated(n, d):
    h = activations(n, d)
    return np.concatenate([h[:17], h, h[n // 2 :]])


CASES = {
    "plain": activations,
    "isotropic": lambda n, d: activations(n, d, decay=0.0),
    "duplicates": duplicated,
    "near-duplicates": near_duplicates,
    "crowds": crowds,
    "constant dimensions": with_constants,
    "outlier": with_outlier,
    "offset": lambda n, d: activations(n, d, decay=0.0) + 1e3,
}


@pytest.mark.parametrize("shape", [(150, 24), (80, 120), (80, 80)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference(case, shape):
    h = CASES[case](*shape)
    assert_agree(layer_proxies(h), layer_proxies_reference(h))


@pytest.mark.parametrize("shape", [(150, 24), (80, 120)], ids=str)
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("case", ["plain", "duplicates", "near-duplicates", "outlier", "offset"])
def test_agrees_with_the_reference_in_every_precision(case, dtype, shape):
    h = torch.from_numpy(CASES[case](*shape)).to(dtype)
    assert_agree(layer_proxies(h), layer_proxies_reference(h.double().numpy()))


@pytest.mark.parametrize("shape", [(150, 40), (80, 120)], ids=str)
def test_agrees_where_lanczos_takes_over(monkeypatch, shape):
    monkeypatch.setattr(spectrum, "_DENSE", 1)
    h = activations(*shape)
    assert_agree(layer_proxies(h), layer_proxies_reference(h))


def test_without_a_gram_matrix_nothing_changes(monkeypatch):
    h = crowds(120, 24)
    with_gram = layer_proxies(h)
    monkeypatch.setattr(proxies, "_GRAM_ROWS", 0)
    assert_agree(layer_proxies(h), with_gram)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(8, 60),
    d=st.integers(1, 70),
    k=st.integers(2, 6),
    ridge=st.floats(1e-6, 10),
    offset=st.sampled_from([0.0, 1e3]),
    seed=st.integers(0, 999),
)
def test_agrees_with_the_reference_anywhere(n, d, k, ridge, offset, seed):
    h = activations(n, d, seed=seed) + offset
    options = {"neighbours": k, "ridge": ridge, "pairs": 50, "seed": seed}
    assert_agree(layer_proxies(h, **options), layer_proxies_reference(h, **options), 1e-5)


@pytest.mark.parametrize("shape", [(200, 3), (120, 150)], ids=str)
def test_ties_go_to_the_lower_row(shape):
    h = np.random.default_rng(0).integers(-3 if shape[1] == 3 else 0, 4, size=shape).astype(float)
    h[:, 3:] *= np.random.default_rng(1).random(shape[1] - 3) < 0.02
    assert_agree(layer_proxies(h), layer_proxies_reference(h))


def test_a_point_is_not_its_own_neighbour_and_distances_are_exact():
    h = torch.from_numpy(near_duplicates(200, 50))
    centred = h - h.mean(dim=0)
    nearest = nearest_neighbours(h, centred, centred @ centred.T, 5)
    distances = torch.cdist(h, h, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(
        torch.inf
    )
    expected = distances.topk(5, largest=False).indices
    assert torch.equal(nearest.sort().values, expected.sort().values)


@pytest.mark.parametrize("n", [20, 171, 600])
@pytest.mark.parametrize("ties", [False, True])
def test_the_smallest_of_a_row_are_those_of_sorting_it(n, ties):
    rows = torch.from_numpy(np.random.default_rng(n).normal(size=(30, n)))
    rows = rows.round(decimals=1) if ties else rows
    values, columns = _smallest(rows, 10)
    assert torch.equal(values, rows.sort(dim=1).values[:, :10])
    assert torch.equal(rows.gather(1, columns), values)
    assert all(len(set(row.tolist())) == 10 for row in columns)


@pytest.mark.parametrize("shape", [(400, 40), (40, 400)], ids=str)
def test_ranks_of_a_known_spectrum(shape):
    count = min(shape[0] - 1, shape[1])
    variances = np.zeros(min(shape))
    variances[:count] = 1 / np.arange(1, count + 1)
    found = layer_proxies(exact_spectrum(*shape, variances))
    assert found.effective_rank == pytest.approx(variances.sum(), rel=1e-9)
    participation = variances.sum() ** 2 / (variances**2).sum()
    assert found.participation_ratio == pytest.approx(participation, rel=1e-9)


def test_isotropic_rank_is_d_less_the_edge_of_the_noise():
    n, d = 4000, 100
    found = layer_proxies(activations(n, d, decay=0.0))
    assert found.effective_rank == pytest.approx(
        d / (1 + (d / n) ** 0.5) ** 2, rel=0.03
    )  # Marchenko-Pastur
    assert found.stiffness == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("n", [60, 150])
def test_in_sample_form_is_the_same_for_every_pair_without_ridge(n):
    h = torch.from_numpy(activations(n, 200))
    pairs = sample_pairs(n, 5000, seed=0)
    squares = (h[pairs[:, 0]] - h[pairs[:, 1]]).square().sum(dim=1)
    found = layer_proxies(h, ridge=1e-10)
    assert found.in_sample
    assert found.stiffness == pytest.approx(float((2 * (n - 1) / squares).quantile(0.5)), rel=1e-5)


@pytest.mark.parametrize("shape", [(150, 24), (80, 200)], ids=str)
def test_scaling_and_rotation(shape):
    h = activations(*shape)
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(shape[1],) * 2))[0]
    base, scaled, rotated = layer_proxies(h), layer_proxies(7 * h), layer_proxies(h @ rotation)
    assert_agree(rotated, base)
    assert scaled.curvature * 49 == pytest.approx(base.curvature)
    assert scaled.stiffness * 49 == pytest.approx(base.stiffness)
    assert scaled.effective_rank == pytest.approx(base.effective_rank)


def test_duplicates_are_counted_and_change_nothing_else():
    h = activations(100, 30)
    found = layer_proxies(np.concatenate([h, h[::3], h[:1]]))
    assert found.duplicates == 35
    assert replace(found, duplicates=0) == layer_proxies(h)


def test_signed_zeros_are_equal():
    h = activations(60, 10)
    h[:, 0] = 0.0
    mirrored = h.copy()
    mirrored[:, 0] = -0.0
    assert layer_proxies(np.concatenate([h, mirrored])).duplicates == 60


def test_no_false_duplicates_in_low_precision():
    rows = torch.randint(0, 2, (3000, 24), generator=torch.Generator().manual_seed(0)).bfloat16()
    distinct = len({tuple(row) for row in rows.tolist()})
    assert layer_proxies(rows).n == distinct


def test_seed_draws_pairs_and_nothing_else():
    h = activations(100, 30)
    first, second = layer_proxies(h, seed=1, pairs=50), layer_proxies(h, seed=2, pairs=50)
    assert first == layer_proxies(h, seed=1, pairs=50)
    assert first.stiffness != second.stiffness
    assert (first.curvature, first.effective_rank) == (second.curvature, second.effective_rank)


def test_pairs_are_uniform_over_distinct_points():
    pairs = sample_pairs(5, 40_000, seed=3)
    counts = np.zeros((5, 5))
    np.add.at(counts, tuple(pairs.T), 1)
    assert (counts.diagonal() == 0).all()
    assert counts[~np.eye(5, dtype=bool)] == pytest.approx(2000, rel=0.12)


@pytest.mark.parametrize("n", [5, 64, 201])
def test_the_inverse_of_a_factor_by_halves(monkeypatch, n):
    monkeypatch.setattr(spectrum, "_SOLVED", 8)
    h = torch.from_numpy(activations(2 * n, n))
    factor = torch.linalg.cholesky(h.T @ h)
    found = spectrum._inverse_factor(factor) @ factor.T
    assert torch.allclose(found, torch.eye(n, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_lanczos_finds_the_largest_eigenvalue(decay):
    h = torch.from_numpy(activations(600, 700, decay=decay))
    matrix = h @ h.T
    assert largest_eigenvalue(matrix) == pytest.approx(
        float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-9
    )


@pytest.mark.parametrize("eigenvalues", [[1.0] * 500, [3.0] + [0.0] * 499])
def test_lanczos_ends_on_an_invariant_subspace(eigenvalues):
    matrix = torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))
    assert largest_eigenvalue(matrix) == pytest.approx(max(eigenvalues))


def test_input_is_not_changed_and_may_need_gradients_or_be_integers():
    h = torch.from_numpy(activations(60, 20)).requires_grad_()
    before = h.detach().clone()
    layer_proxies(h)
    assert torch.equal(h, before)
    assert layer_proxies((before * 100).long()).n == 60


@pytest.mark.parametrize(
    ("h", "options", "word"),
    [
        (np.ones((50, 4)), {}, "distinct"),
        (activations(21, 4), {}, "distinct"),
        (np.concatenate([activations(21, 4)] * 9), {}, "sample more tokens"),
        (np.full((50, 4), np.nan), {}, "NaN"),
        (np.where(np.eye(50) > 0, np.inf, 0), {}, "infinity"),
        (np.ones(50), {}, "matrix"),
        (np.ones((0, 4)), {}, "matrix"),
        (activations(50, 4), {"neighbours": 1}, "neighbours=1"),
        (activations(50, 4), {"ridge": 0.0}, "ridge=0.0"),
        (activations(50, 4), {"pairs": 0}, "pairs=0"),
        (activations(50, 4) * 1e-200, {}, "rescale"),
        (activations(50, 90), {"ridge": 1e-19}, "larger"),
    ],
)
def test_errors_are_one_clear_sentence(h, options, word):
    with pytest.raises(UserError, match=word) as caught:
        layer_proxies(h, **options)
    assert "\n" not in str(caught.value)


def test_the_smallest_allowed_sample():
    h = activations(22, 4)
    assert_agree(layer_proxies(h), layer_proxies_reference(h))
