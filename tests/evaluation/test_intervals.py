"""Intervals cover as often as they say, and pairing pays."""

import numpy as np
import pytest
from scipy import stats

from dihal_bench.evaluation.intervals import DocumentBootstrap, holding, over_trainings
from dihal_bench.results.table import Estimate


def documents(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums per document of a ratio 2, where longer documents have less of it per token."""
    tokens = generator.integers(5, 200, count).astype(float)
    effect = generator.normal(0, 0.5, count)
    return tokens * (2 + effect - 0.002 * (tokens - tokens.mean())), tokens


def truth() -> float:
    """The ratio of expectations of ``documents``, whose lengths are uniform on 5..199."""
    lengths = np.arange(5, 200)
    return 2 - 0.002 * lengths.var() / lengths.mean()


def test_the_interval_of_a_ratio_of_sums_covers_the_truth_95_percent_of_the_time():
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(400):
        estimate = DocumentBootstrap(80, resamples=400, seed=seed).ratio(*documents(generator, 80))
        hits += estimate.lo <= truth() <= estimate.hi
    assert 0.92 <= hits / 400 <= 0.98


def test_the_estimate_is_the_ratio_of_sums_and_lies_within():
    estimate = DocumentBootstrap(3).ratio(np.array([1.0, 2.0, 9.0]), np.array([1.0, 1.0, 2.0]))
    assert estimate.value == 3.0  # not the mean of ratios, 2.5
    assert estimate.lo < estimate.value < estimate.hi
    assert estimate.lo >= 1
    assert estimate.hi <= 4.5


def test_pairing_narrows_the_difference_of_rows_that_rise_and_fall_together():
    generator = np.random.default_rng(1)
    first, tokens = documents(generator, 100)
    second = first + tokens * (0.1 + generator.normal(0, 0.02, 100))
    bootstrap = DocumentBootstrap(100)
    paired = bootstrap.difference((second, tokens), (first, tokens))
    ends = [bootstrap.ratio(row, tokens) for row in (first, second)]
    unpaired = np.hypot(*(end.hi - end.lo for end in ends))
    assert paired.hi - paired.lo < 0.2 * unpaired
    assert paired.lo < 0.1 < paired.hi
    assert paired.value == pytest.approx(ends[1].value - ends[0].value)


def test_a_row_differs_from_itself_by_exactly_nothing():
    row = documents(np.random.default_rng(2), 50)
    estimate = DocumentBootstrap(50).difference(row, row)
    assert (estimate.value, estimate.lo, estimate.hi) == (0, 0, 0)


def test_equal_documents_leave_no_doubt():
    estimate = DocumentBootstrap(20).ratio(np.full(20, 3.0), np.full(20, 2.0))
    assert (estimate.value, estimate.lo, estimate.hi) == (1.5, 1.5, 1.5)


def test_one_document_is_all_there_is():
    estimate = DocumentBootstrap(1).ratio(np.array([6.0]), np.array([4.0]))
    assert (estimate.value, estimate.lo, estimate.hi) == (1.5, 1.5, 1.5)


def test_documents_without_tokens_do_no_harm():
    numerator, tokens = np.array([0.0, 6.0, 0.0]), np.array([0.0, 4.0, 0.0])
    estimate = DocumentBootstrap(3).ratio(numerator, tokens)  # some resamples have no token at all
    assert (estimate.value, estimate.lo, estimate.hi) == (1.5, 1.5, 1.5)


def test_the_seed_decides():
    row = documents(np.random.default_rng(3), 30)
    one, same, other = (DocumentBootstrap(30, seed=s).ratio(*row) for s in (4, 4, 5))
    assert one == same
    assert one != other
    assert one.value == other.value


def test_trainings_that_differ_widen_the_interval():
    row, tokens = documents(np.random.default_rng(3), 60)
    equal = np.stack([row] * 3)
    apart = equal + 0.2 * tokens * np.array([-1.0, 0.0, 1.0])[:, None]
    bootstrap = DocumentBootstrap(60)
    same, wider = (bootstrap.ratio(sums, np.stack([tokens] * 3)) for sums in (equal, apart))
    alone = DocumentBootstrap(60).ratio(row, tokens)
    assert (same.lo, same.hi) == pytest.approx((alone.lo, alone.hi))  # three of a kind say no more
    assert wider.value == pytest.approx(alone.value)
    assert wider.hi - wider.lo > 1.3 * (alone.hi - alone.lo)


@pytest.mark.parametrize("spread", [0.02, 0.2])  # of trainings: documents dominate, or trainings do
@pytest.mark.parametrize("trainings", [3, 5])
def test_few_trainings_cover_the_truth_as_well(trainings: int, spread: float):
    generator = np.random.default_rng(4)
    hits = 0
    for seed in range(400):
        row, tokens = documents(generator, 80)
        effects = generator.normal(0, spread, trainings)
        found = DocumentBootstrap(80, resamples=200, seed=seed).ratio(
            row + tokens * effects[:, None], np.stack([tokens] * trainings)
        )
        hits += found.lo <= truth() <= found.hi
    assert 0.92 <= hits / 400 <= 0.99


def test_the_interval_of_trainings_alone_is_students():
    """Scipy's own, where documents do not differ."""
    tokens = np.full((3, 10), 5.0)
    values = np.array([1.0, 1.2, 1.7])
    found = DocumentBootstrap(10).ratio(values[:, None] * tokens, tokens)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.lo, found.hi) == pytest.approx((expected.low, expected.high))


def test_a_row_that_is_not_trained_is_paired_with_rows_that_are():
    row, tokens = documents(np.random.default_rng(5), 40)
    trained = (np.stack([row, row + tokens]), np.stack([tokens, tokens]))
    found = DocumentBootstrap(40).difference((row, tokens), trained)
    assert found.value == pytest.approx(-0.5)
    half = stats.t.ppf(0.975, 1) * 0.5  # of two trainings that differ by 1
    assert (found.lo, found.hi) == pytest.approx((-0.5 - half, -0.5 + half), rel=1e-3)


@pytest.mark.parametrize("trainings", [1, 3])
def test_pairs_at_once_are_pairs_one_by_one(trainings: int) -> None:
    rng = np.random.default_rng(3)
    bootstrap = DocumentBootstrap(30, resamples=200)
    tokens = np.broadcast_to(rng.integers(5, 50, 30).astype(float), (trainings, 30))
    base = tokens * rng.normal(0.3, 0.1, 30)
    terms = [
        (base + shift * tokens + rng.normal(0, 0.02, (trainings, 1)) * tokens, tokens)
        for shift in (0.0, 0.0, 0.03, 0.06, 0.2)
    ]
    terms.append(terms[0])  # no difference at all
    found = bootstrap.surely_above([bootstrap.of(*term) for term in terms])
    each = [[bootstrap.difference(one, other).lo > 0 for other in terms] for one in terms]
    np.testing.assert_array_equal(found, each)
    assert found.any()
    assert not found.all()
    assert not found[0, 5]


def test_trainings_that_are_not_shared_are_independent() -> None:
    """Of trainings that differ by nothing in common pairing gains nothing, nor does it lose."""
    rng = np.random.default_rng(5)
    bootstrap = DocumentBootstrap(40, resamples=400)
    tokens = np.full((3, 40), 20.0)
    base = tokens * rng.normal(0.3, 0.1, 40)
    covered = 0
    for _ in range(200):
        one, other = (
            bootstrap.of(base + rng.normal(0, 0.02, (3, 1)) * tokens, tokens) for _ in range(2)
        )
        found = bootstrap.estimate_apart(one, other)
        assert found.value == pytest.approx(one.point - other.point)
        covered += found.lo <= 0 <= found.hi
    assert 180 <= covered <= 199
    alike = bootstrap.of(base, tokens)
    assert bootstrap.estimate_apart(alike, alike).lo == 0


def test_an_interval_holds_its_point() -> None:
    assert holding(2.0, 1.0, 3.0) == Estimate(2.0, 1.0, 3.0)
    assert holding(0.5, 1.0, 3.0) == Estimate(0.5, 0.5, 3.0)
    assert holding(4.0, np.float64(1.0), np.float64(3.0)) == Estimate(4.0, 1.0, 4.0)


@pytest.mark.parametrize("scale", [1.0, 2.0**-40, 2.0**1010])
def test_trainings_of_any_size_have_an_interval(scale: float) -> None:
    values = np.array([[1.0, 5.0], [2.5, 5.0], [3.0, 5.0]])
    usual, scaled = over_trainings(values), over_trainings(scale * values)
    assert usual is not None
    assert scaled is not None
    for one, other in zip(usual, scaled, strict=True):
        np.testing.assert_array_equal(scale * one, other)
    np.testing.assert_allclose(usual[0] + usual[1], 2 * values.mean(0))
    assert over_trainings(np.zeros((3, 1))) is not None
