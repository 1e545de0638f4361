"""Rank statistics equal scipy's and definitions written out; what is undefined says so."""

import itertools

import numpy as np
import pytest
from scipy import stats

from dihal_bench.errors import UserError
from dihal_bench.ranking.agreement import agreement, partial_spearman, resampled


def test_correlations_are_scipys_and_count_pairs() -> None:
    generator = np.random.default_rng(0)
    for size in (3, 7, 33):
        score, loss = generator.normal(size=(2, size)).round(1)  # with ties
        found = agreement(score, loss, range(size))
        assert found.spearman == pytest.approx(stats.spearmanr(score, -loss).statistic)
        assert found.kendall == pytest.approx(stats.kendalltau(score, -loss).statistic)
        pairs = list(itertools.combinations(range(size), 2))
        signs = [np.sign(score[i] - score[j]) * np.sign(loss[j] - loss[i]) for i, j in pairs]
        apart = [[x[i] != x[j] for i, j in pairs] for x in (score, loss)]
        tau = sum(signs) / np.sqrt(np.sum(apart[0]) * np.sum(apart[1]))
        assert found.kendall == pytest.approx(tau)


def test_selections_are_those_of_a_reader() -> None:
    found = agreement([0.1, 0.9, 0.9, 0.3], [2.0, 1.5, 1.0, 1.2], [1, 2, 3, 4])
    assert (found.predicted, found.observed) == (1, 2)  # of equal scores the first
    assert (found.rank_gap, found.regret, found.hit) == (2, 0.5, True)
    worst = agreement([9, 1, 2, 3, 4], [5.0, 1, 2, 3, 4], range(5))
    assert (worst.rank_gap, worst.hit) == (4, False)


def test_a_partial_correlation_removes_the_depth() -> None:
    generator = np.random.default_rng(1)
    depth = np.arange(400.0)
    a, b = (depth + 200 * generator.normal(size=400) for _ in range(2))
    assert stats.spearmanr(a, b).statistic > 0.15
    partial = partial_spearman(a, b, depth)
    assert partial is not None
    ranks = np.stack([stats.rankdata(v) for v in (a, b, depth)])
    precision = np.linalg.inv(np.corrcoef(ranks))
    assert partial == pytest.approx(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))


@pytest.mark.parametrize("monotone", ["score", "loss"])
def test_it_is_undefined_where_depth_says_all(monotone: str) -> None:
    wave, line = np.array([1.0, 3.0, 2.0, 5.0, 4.0]), np.arange(5.0) ** 2
    score, loss = (line, wave) if monotone == "score" else (wave, -line)
    found = agreement(score, loss, range(5))
    assert found.partial is None
    assert found.spearman is not None
    assert agreement(np.ones(5), loss, range(5)).kendall is None


def test_intervals_are_over_subsamples_and_trainings() -> None:
    generator = np.random.default_rng(2)
    truth = np.arange(6.0)
    predictors = truth + 0.1 * generator.normal(size=(20, 6))
    losses = -truth + 0.1 * generator.normal(size=(3, 6))
    value = agreement(predictors.mean(0), losses.mean(0), range(6))
    found = resampled(predictors, losses, range(6), value=value, resamples=200)
    assert (found["kendall"].lo, found["kendall"].hi) == pytest.approx((1.0, 1.0))
    assert found["partial"].value is None
    noisy = resampled(
        truth + 3 * generator.normal(size=(20, 6)), losses, range(6), value=value, resamples=200
    )
    assert noisy["kendall"].lo < 0.7
    assert noisy["regret"].hi > 0


@pytest.mark.parametrize(
    ("score", "loss", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], "at least 3"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "cannot be compared"),
        ([1.0, 2.0, float("nan")], [1.0, 2.0, 3.0], "not a finite number"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    score: list[float], loss: list[float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        agreement(score, loss, range(len(score)))
