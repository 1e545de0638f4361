"""Rank statistics equal scipy's and definitions written out; what is undefined says so."""

import itertools

import numpy as np
import pytest
from scipy import stats

from dihal_bench.core.errors import UserError
from dihal_bench.studies.ranking.agreement import (
    Agreement,
    Prediction,
    agreements,
    kendall,
    partial_spearman,
    spearman,
)


def compared(score, losses, depth) -> Agreement:
    predictions = {"score": Prediction.of(score), "depth": Prediction.of(-np.asarray(depth, float))}
    return agreements(predictions, np.atleast_2d(losses), depth, rival="depth", resamples=20)[
        "score"
    ]


def test_correlations_are_scipys_and_count_pairs() -> None:
    generator = np.random.default_rng(0)
    for size in (3, 7, 33):
        score, loss = generator.normal(size=(2, size)).round(1)  # with ties
        found = compared(score, loss, range(size))
        assert found.spearman.value == pytest.approx(stats.spearmanr(score, -loss).statistic)
        assert found.kendall.value == pytest.approx(stats.kendalltau(score, -loss).statistic)
        pairs = list(itertools.combinations(range(size), 2))
        signs = [np.sign(score[i] - score[j]) * np.sign(loss[j] - loss[i]) for i, j in pairs]
        apart = [[x[i] != x[j] for i, j in pairs] for x in (score, loss)]
        tau = sum(signs) / np.sqrt(np.sum(apart[0]) * np.sum(apart[1]))
        assert found.kendall.value == pytest.approx(tau)


def test_many_at_once_are_each_as_alone() -> None:
    a, b = np.random.default_rng(5).normal(size=(2, 50, 9)).round(1)
    for own, other in ((spearman, stats.spearmanr), (kendall, stats.kendalltau)):
        expected = [other(x, y).statistic for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(own(a, b), expected, atol=1e-12)


def test_rounding_breaks_no_tie() -> None:
    loss = np.array([3.0, 1.0, 2.0, 5.0])
    a = np.array([0.1 + 0.2, 0.3, 0.3, 1.0])
    assert a[0] != a[1]
    assert kendall(a, loss) == kendall(a.round(3), loss)
    assert np.isnan(kendall(np.array([0.3, 0.1 + 0.2, 0.3, 0.3]), loss))


def test_selections_are_those_of_a_reader() -> None:
    found = compared([0.1, 0.9, 0.9, 0.3], [2.0, 1.5, 1.0, 1.2], [1, 2, 3, 4])
    assert (found.predicted, found.observed) == (1, 2)  # of equal scores the first
    assert (found.rank_gap.value, found.regret.value, found.hit) == (2, 0.5, True)
    worst = compared([9, 1, 2, 3, 4], [5.0, 1, 2, 3, 4], range(5))
    assert (worst.rank_gap.value, worst.hit) == (4, False)


def test_a_partial_correlation_removes_the_depth() -> None:
    generator = np.random.default_rng(1)
    depth = np.arange(400.0)
    a, b = (depth + 200 * generator.normal(size=400) for _ in range(2))
    assert stats.spearmanr(a, b).statistic > 0.15
    ranks = np.stack([stats.rankdata(v) for v in (a, b, depth)])
    precision = np.linalg.inv(np.corrcoef(ranks))
    expected = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
    assert partial_spearman(a, b, depth) == pytest.approx(expected)


@pytest.mark.parametrize("monotone", ["score", "loss"])
def test_it_is_undefined_where_depth_says_all(monotone: str) -> None:
    wave, line = np.array([1.0, 3.0, 2.0, 5.0, 4.0]), np.arange(5.0) ** 2
    score, loss = (line, wave) if monotone == "score" else (wave, -line)
    found = compared(score, loss, range(5))
    assert found.partial.value is None
    assert found.spearman.value is not None
    assert compared(np.ones(5), loss, range(5)).kendall.value is None


def test_what_only_selects_has_no_correlation() -> None:
    predictions = {"middle": Prediction.choice(2, 5), "depth": Prediction.of(-np.arange(5.0))}
    found = agreements(
        predictions, np.array([[5.0, 4, 2, 1, 3]]), range(5), rival="depth", resamples=20
    )["middle"]
    assert (found.kendall.value, found.advantage.value) == (None, None)
    assert (found.predicted, found.rank_gap.value, found.regret.value) == (2, 1, 1)


def test_intervals_are_over_subsamples_and_trainings() -> None:
    generator = np.random.default_rng(2)
    truth = np.arange(6.0)
    losses = -truth + 0.1 * generator.normal(size=(3, 6))
    sharp = truth + 0.1 * generator.normal(size=(20, 6))
    blunt = truth + 3 * generator.normal(size=(20, 6))
    predictions = {
        "sharp": Prediction.of(sharp.mean(0), sharp),
        "blunt": Prediction.of(truth, blunt),
        "depth": Prediction.of(-truth),
    }
    found = agreements(predictions, losses, range(6), rival="depth", resamples=300)
    one, other = found["sharp"], found["blunt"]
    assert (one.kendall.lo, one.kendall.hi) == pytest.approx((1.0, 1.0))
    assert one.advantage.value == pytest.approx(2.0)
    assert one.partial.value is None
    assert other.kendall.lo < 0.7
    assert other.regret.hi > 0
    assert found["depth"].advantage.value == found["depth"].advantage.hi == 0


def test_differences_are_taken_in_pairs() -> None:
    """Two predictors that agree in every subsample differ by nothing, however they spread."""
    generator = np.random.default_rng(3)
    draws = generator.normal(size=(30, 8))
    same = {name: Prediction.of(draws[0], draws) for name in ("one", "other")}
    found = agreements(same, generator.normal(size=(3, 8)), range(8), rival="other", resamples=200)
    assert found["one"].kendall.hi - found["one"].kendall.lo > 0.5
    assert (found["one"].advantage.lo, found["one"].advantage.hi) == (0, 0)


@pytest.mark.parametrize(
    ("score", "loss", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], "at least 3"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "cannot be compared"),
        ([1.0, 2.0, float("nan")], [1.0, 2.0, 3.0], "not a finite number"),
        ([1.0, 2.0, 3.0], [1.0, 2.0, float("inf")], "not a finite number"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    score: list[float], loss: list[float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        compared(score, loss, range(len(score)))
