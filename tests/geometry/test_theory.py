"""The theory's bounds hold where they have to, and fail where an assumption is broken."""

import json

import numpy as np
import pytest
from scipy import stats

from dihal_bench.studies.theory import checks as theory
from dihal_bench.studies.theory.line_laws import (
    LineLaw,
    gaussian,
    gibbs,
    langevin,
    middles,
    wasserstein,
)

CLAIMS = ("Theorem 1", "Theorem 2", "Lemma 1", "Theorem 3")
EDGES = np.linspace(-12, 12, 1201)


@pytest.fixture(scope="module")
def checks():
    return theory.verify()


def test_every_check_comes_out_as_it_should(checks):
    assert [check for check in checks if not check.as_expected] == []


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_is_dialled_and_has_a_control_that_fails_clearly(checks, claim):
    own = [check for check in checks if check.claim == claim]
    assert len({tuple(check.dialled.items()) for check in own}) >= 5
    controls = [check for check in own if check.control]
    assert controls
    assert all(check.measured > 1.5 * check.bound for check in controls)
    assert all(check.bound > 0 for check in own)


@pytest.mark.parametrize(
    ("claim", "law"),
    [
        ("Theorem 1", "Gaussian, moved in its softest direction"),
        ("Theorem 2", "Gaussian, a constant error in its softest direction"),
        ("Theorem 3", "the softest direction of a Gaussian"),
    ],
)
def test_bounds_are_tight_where_theory_says_so(checks, claim, law):
    own = [check for check in checks if (check.claim, check.law) == (claim, law)]
    own = [check for check in own if not check.statement.startswith("P(")]
    assert len(own) >= 3
    for check in own:
        assert check.measured == pytest.approx(check.bound, rel=1e-9)


def test_a_constant_five_percent_too_large_is_caught():
    soft = theory._SOFTEST
    contracting = theory._gaussian_contraction("", 1.05, soft, 1.0, true_kappa=1.0)
    drifting = theory._gaussian_drift("", 1.05, 0.1, soft, true_kappa=1.0)
    assert not contracting.holds
    assert not drifting.holds
    assert not theory._variance("", 1.05, 1.0).holds


@pytest.mark.parametrize("kappa", [0.5, 2.0])
def test_stiffer_laws_are_moved_less(kappa):
    softer, stiffer = (
        theory._line_drift("", k, 0.5, theory._quartic(k), 0.0).measured for k in (kappa, 4 * kappa)
    )
    assert stiffer < 0.7 * softer


def test_checks_are_plain_and_the_same_every_time(checks):
    plain = [check.to_dict() for check in checks]
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert [check.to_dict() for check in theory.verify()] == plain


def test_distance_of_gaussians_is_the_closed_form():
    for mean, deviation in ((0.001, 1.0), (0.7, 1.0), (0.0, 0.4), (-1.0, 1.5)):
        found = wasserstein(gaussian(0.0, 1.0, EDGES), gaussian(mean, deviation, EDGES))
        assert found == pytest.approx(np.hypot(mean, deviation - 1), rel=2e-3)
    assert wasserstein(gaussian(0.0, 1.0, EDGES), gaussian(0.0, 1.0, EDGES)) == 0


def test_distance_agrees_with_samples():
    rng = np.random.default_rng(0)
    masses = rng.dirichlet(np.ones(6), size=2)
    edges = np.linspace(0, 6, 7)
    a, b = (LineLaw(edges, mass) for mass in masses)
    levels = (np.arange(200_000) + 0.5) / 200_000
    drawn = [np.interp(levels, np.r_[0, np.cumsum(mass)], edges) for mass in masses]
    expected = np.sqrt(((drawn[0] - drawn[1]) ** 2).mean())
    assert wasserstein(a, b) == pytest.approx(expected, rel=1e-4)
    assert wasserstein(b, a) == pytest.approx(wasserstein(a, b))


@pytest.mark.parametrize("t", [0.05, 0.5, 3.0])
def test_dynamics_of_a_gaussian_are_ornstein_uhlenbeck(t):
    kappa, mean, deviation = 2.0, 1.5, 0.3
    law = langevin(lambda x: kappa * x**2 / 2, gaussian(mean, deviation, EDGES), t)
    decay = np.exp(-kappa * t)
    assert law.mean == pytest.approx(mean * decay, abs=1e-3)
    assert law.variance == pytest.approx((1 - decay**2) / kappa + decay**2 * deviation**2, rel=2e-3)


def test_dynamics_in_a_double_well_are_those_of_simulated_paths():
    def well(x):
        return 1.5 * (x**2 - 1) ** 2

    rng, step, t = np.random.default_rng(0), 1e-3, 0.4
    x = rng.normal(0.8, 0.2, size=20_000)
    for _ in range(round(t / step)):
        x += -6 * x * (x**2 - 1) * step + np.sqrt(2 * step) * rng.normal(size=x.size)
    law = langevin(well, gaussian(0.8, 0.2, np.linspace(-3.5, 3.5, 701)), t)
    below = np.r_[0, np.cumsum(law.mass)]
    distance = stats.ks_1samp(x, lambda at: np.interp(at, law.edges, below)).statistic
    assert distance < 0.02
    assert law.mass.sum() == pytest.approx(1)


def test_the_invariant_law_stays_and_is_reached():
    def well(x):
        return 1.5 * (x**2 - 1) ** 2

    edges = np.linspace(-3.5, 3.5, 701)
    invariant = gibbs(well, edges)
    assert wasserstein(langevin(well, invariant, 5.0), invariant) < 1e-6
    assert wasserstein(langevin(well, gaussian(0.8, 0.2, edges), 50.0), invariant) < 1e-3
    density = np.exp(-well(middles(edges)))
    assert invariant.mass == pytest.approx(density / density.sum())


def test_moments_and_tails_of_a_law():
    law = gaussian(0.5, 1.3, EDGES)
    assert (law.mean, law.variance) == pytest.approx((0.5, 1.69), abs=1e-3)
    assert law.tail(2.0) == pytest.approx(2 * stats.norm.sf(2.0 / 1.3), rel=1e-3)
