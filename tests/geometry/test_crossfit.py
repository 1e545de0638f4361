"""The cross-fitted stiffness against what it estimates, and against the in-sample form."""

import json

import numpy as np
import pytest
import torch

from dihal_bench.cli.main import main
from dihal_bench.geometry import crossfit, sample_pairs
from dihal_bench.geometry.crossfit import Scatter, cross_stiffness, crossed_layers
from dihal_bench.geometry.spectrum import gram_quotients, scatter_quotients


def gaussian(n, scale, seed):
    rng = np.random.default_rng(seed)
    d = len(scale)
    basis = np.linalg.qr(np.random.default_rng(9).normal(size=(d, d)))[0]
    return torch.from_numpy(rng.normal(size=(n, d)) * scale @ basis.T), basis


def scatter_of(rows, block=97):
    scatter = Scatter(rows.shape[1])
    for part in rows.split(block):
        scatter.add(part)
    return scatter


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("block", [1, 97, 5000])
def test_streamed_products_are_those_of_numpy_even_far_from_the_origin(offset, block):
    rows, _ = gaussian(1000, np.arange(1, 13) ** -1.0, seed=0)
    scatter = scatter_of(rows + offset, block)
    expected = np.cov((rows + offset).numpy().T) * 999
    assert scatter.n == 1000
    np.testing.assert_allclose(scatter.products, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scatter.mean, (rows + offset).mean(dim=0), rtol=1e-12, atol=1e-12)


def test_no_rows_change_nothing():
    scatter = Scatter(3)
    scatter.add(torch.empty(0, 3))
    assert scatter.n == 0
    scatter.add(torch.ones(2, 3))
    scatter.add(torch.empty(0, 3))
    assert (scatter.n, scatter.mean.tolist()) == (2, [1.0, 1.0, 1.0])


def forms(quotients, rows, drawn):
    return quotients * (rows[drawn[:, 0]] - rows[drawn[:, 1]]).square().sum(dim=1)


def test_in_sample_every_pair_has_the_same_form_and_cross_fitted_it_has_not():
    n, d = 60, 200
    scale = np.arange(1, d + 1) ** -0.5
    rows, other = gaussian(n, scale, 0)[0], scatter_of(gaussian(20 * d, scale, 1)[0])
    centred = rows - rows.mean(dim=0)
    gram = centred @ centred.T
    drawn = torch.from_numpy(sample_pairs(n, 5000, seed=0))
    epsilon = 1e-10 * float(gram.trace()) / d
    inside = forms(gram_quotients(gram, epsilon, drawn), rows, drawn) * (n - 1)
    assert float((inside / (2 * (n - 1)) - 1).abs().max()) < 1e-6
    epsilon = 1e-10 * float(other.products.trace()) / d
    crossed = scatter_quotients(other.products, rows, epsilon, drawn)
    crossed = forms(crossed, rows, drawn) * (other.n - 1)
    assert float(crossed.std() / crossed.mean()) > 0.05
    assert float(crossed.median()) == pytest.approx(2 * d, rel=0.1)  # of a Gaussian, in expectation


@pytest.mark.parametrize("d", [16, 64])
def test_converges_to_the_true_quotient_of_a_gaussian(d):
    scale = np.arange(1, d + 1) ** -0.5
    states, basis = gaussian(500, scale, seed=2)
    drawn = sample_pairs(500, 5000, seed=0)
    u = (states[drawn[:, 0]] - states[drawn[:, 1]]).numpy()
    truth = float(np.median(((u @ basis / scale) ** 2).sum(axis=1) / (u**2).sum(axis=1)))
    errors = []
    for tokens in (2 * d, 10 * d, 100 * d):
        scatter = scatter_of(gaussian(tokens, scale, seed=1)[0])
        found = cross_stiffness(5, scatter, states, ridge=1e-6, pairs=5000, seed=0)
        assert (found.layer, found.n_sigma, found.enough) == (5, tokens, tokens >= 10 * d)
        errors.append(found.stiffness_cross / truth - 1)
    # E of the inverse of a sample covariance is (n - 1) / (n - d - 2) times the true inverse.
    assert errors[0] > 0.5
    assert 0.05 < errors[1] < 0.2
    assert abs(errors[2]) < 0.03


def test_equal_rows_count_once_and_too_few_have_no_stiffness():
    scatter = scatter_of(gaussian(300, np.ones(4), seed=0)[0])
    states = gaussian(40, np.ones(4), seed=1)[0]
    options = {"ridge": 1e-3, "pairs": 200, "seed": 0}
    once = cross_stiffness(1, scatter, states, **options)
    assert cross_stiffness(1, scatter, states.repeat(3, 1), **options) == once
    for few in (states[:0], states[:1], states[:1].repeat(5, 1)):
        assert cross_stiffness(1, scatter, few, **options).stiffness_cross is None
    for empty in (Scatter(4), scatter_of(states[:1]), scatter_of(states[:1].repeat(5, 1))):
        assert cross_stiffness(1, empty, states, **options).stiffness_cross is None


def test_layers_are_spread_where_not_all_fit(monkeypatch):
    assert crossed_layers(list(range(1, 32)), 4096) == list(range(1, 32))
    monkeypatch.setattr(crossfit, "_MEMORY", 4 * 8 * 10 * 10)
    assert crossed_layers([1, 2, 3], 10) == [1, 2, 3]
    assert crossed_layers(list(range(1, 11)), 10) == [1, 4, 7, 10]
    assert crossed_layers([1, 2, 3], 1000) == [1]


def located(tiny, out, *flags):
    assert main(["locate", *tiny.flags(), *flags, "--out", str(out)]) == 0
    return json.loads((out / "locate.json").read_text())


def test_locate_reports_it_beside_the_stiffness(tiny, tmp_path, capsys):
    found = located(tiny, tmp_path / "run")
    assert [row["layer"] for row in found["cross"]] == [1, 2, 3]
    tokens = 40 * 32
    for row in found["cross"]:
        assert row["stiffness_cross"] > 0
        assert 0.3 * tokens < row["n_sigma"] < 0.7 * tokens
        assert row["enough"]  # 32 dimensions
    out = capsys.readouterr().out
    assert "cross-fitted" in out.splitlines()[0]
    assert f"{found['cross'][1]['stiffness_cross']:.3g}" in out.splitlines()[3]


def test_locate_says_what_is_missing(tiny, tmp_path, capsys, monkeypatch):
    found = located(tiny, tmp_path / "few", "--set=locate.windows=10")
    assert not found["cross"][0]["enough"]
    out = capsys.readouterr().out
    tokens = found["cross"][0]["n_sigma"]
    assert f"a covariance of {tokens} tokens, fewer than 10 per dimension" in out
    monkeypatch.setattr(crossfit, "_MEMORY", 2 * 8 * 32 * 32)
    found = located(tiny, tmp_path / "two")
    assert [row["layer"] for row in found["cross"]] == [1, 3]
    assert "cross-fitted in 2 of 3 layers" in capsys.readouterr().out
