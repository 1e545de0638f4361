"""Distances of sets against closed forms and independent implementations."""

import numpy as np
import pytest
from scipy.stats import energy_distance as one_dimensional

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.samples.distribution import energy_distance, mauve, typicality
from dihal_bench.evaluation.samples.features import NAMES, standardised, text_features

GENERATOR = np.random.default_rng(0)
SOME = GENERATOR.normal(size=(300, 3))
OTHERS = GENERATOR.normal(size=(260, 3))


def test_mauve_of_a_set_and_itself_is_one_and_of_distant_ones_next_to_nothing() -> None:
    near = mauve(SOME, SOME, seeds=range(2))
    far = mauve(SOME + 50 * np.array([1.0, -1.0, 0.0]), SOME, seeds=range(2))
    assert near.value == pytest.approx(1.0, abs=1e-6)
    assert far.value == pytest.approx(_disjoint(), abs=1e-3)
    assert far.lo <= far.value <= far.hi


def _disjoint() -> float:
    """MAUVE of sets without a bucket in common, from its definition.

    The curve is exp(-c KL) of both sets to their mixtures; of disjoint ones that is, at weight w,
    KL(p || w p + (1 - w) q) = -log w and KL(q || ...) = -log (1 - w), with c = 5 and 25 weights.
    """
    weight = np.linspace(1e-6, 1 - 1e-6, 25)
    x, y = np.exp(5 * np.log(weight)), np.exp(5 * np.log(1 - weight))
    x, y = np.concatenate(([1.0], x[::-1], [0.0])), np.concatenate(([0.0], y[::-1], [1.0]))
    return float(np.trapezoid(y[::-1], x[::-1]))


def test_mauve_says_how_far_its_seeds_lie_apart_and_repeats_itself() -> None:
    one = mauve(SOME, OTHERS + 0.5, seeds=range(3))
    assert one == mauve(SOME, OTHERS + 0.5, seeds=range(3))
    assert one.lo < one.value < one.hi


def test_mauve_of_a_handful_is_refused() -> None:
    with pytest.raises(UserError, match="20 samples a side"):
        mauve(SOME[:10], SOME, seeds=range(1))


def test_mauve_leaves_the_error_stream_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    mauve(SOME, OTHERS, seeds=range(1))
    assert capfd.readouterr().err == ""


def test_energy_distance_is_that_of_scipy_in_one_dimension() -> None:
    """Scipy's is the root of a biased one: of all pairs, a point with itself among them."""
    x, y = SOME[:40, :1], OTHERS[:30, :1] + 0.7
    found = energy_distance(x, y, permutations=0, seed=0).value
    y_std = y.std()
    n, m = len(x), len(y)
    within_x = np.abs(x - x.T).mean() / y_std
    within_y = np.abs(y - y.T).mean() / y_std
    biased = one_dimensional(x[:, 0] / y_std, y[:, 0] / y_std) ** 2 / 1.0
    cross = np.abs(x - y.T).mean() / y_std
    assert biased == pytest.approx(2 * cross - within_x - within_y)
    assert found == pytest.approx(2 * cross - within_x * n / (n - 1) - within_y * m / (m - 1))


def test_energy_distance_of_one_law_is_about_nothing_and_its_test_keeps_its_size() -> None:
    values = [
        energy_distance(part, OTHERS, permutations=99, seed=i)
        for i, part in enumerate(np.random.default_rng(1).normal(size=(60, 25, 3)))
    ]
    assert abs(np.mean([found.value for found in values])) < 0.03
    assert 0 <= sum(found.p <= 0.1 for found in values) <= 14  # of 60: 6 in the mean


def test_the_test_is_exact_where_deviations_of_one_side_are_no_measure() -> None:
    """Heavy tails, few texts: in units of one side's deviations every other test would reject."""
    generator = np.random.default_rng(2)
    draws = generator.standard_t(2, size=(400, 26, 20))
    small = [
        energy_distance(own[:20], own[20:], permutations=39, seed=i).p <= 0.1
        for i, own in enumerate(draws)
    ]
    assert 0.06 <= np.mean(small) <= 0.14  # two standard errors of 0.1 are 0.03


def test_energy_distance_of_another_law_is_found() -> None:
    found = energy_distance(SOME + 1.0, OTHERS, permutations=99, seed=0)
    assert found.value > 0.5
    assert found.p == 1 / 100


def test_typicality_of_exchangeable_samples_is_one_half() -> None:
    """With as many features as there are, and as few texts; in the mean of several sets."""
    generator = np.random.default_rng(3)
    found = [
        typicality(generator.normal(size=(200, 21)), generator.normal(size=(120, 21))).mean()
        for _ in range(12)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.025)
    assert typicality(SOME * 6, OTHERS).mean() < 0.15


def test_features_are_of_the_text_alone() -> None:
    found = dict(zip(NAMES, text_features(["The cat sat. The cat ran!", ""])[0], strict=True))
    assert found["mean word length"] == 3.0
    assert found["different words"] == 4 / 6
    assert found["words that occur once"] == 2 / 6
    assert found["mean sentence length"] == 3.0
    assert found["function words"] == 2 / 6
    assert found["capitalised"] == 2 / 6
    assert found["full stops"] == 1 / 25
    assert np.isfinite(text_features(["", " ", "1 2 3"])).all()


def test_features_that_are_constant_in_real_text_are_left_out() -> None:
    reference = np.array([[0.0, 1.0], [2.0, 1.0]])
    own, real = standardised(np.array([[3.0, 7.0]]), reference)
    assert real.tolist() == [[-1.0], [1.0]]
    assert own.tolist() == [[2.0]]
