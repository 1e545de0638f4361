"""How well a predictor's ranking of candidates agrees with their measured losses.

Candidates are few, and curves over layers smooth: the statistics come with intervals and rivals,
never with a p-value of their own (two random walks of 30 steps correlate "significantly" most of
the time). All of them are functions of the last axis, so that thousands of resamples are one call;
scipy's values are what the tests compare with.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dihal_bench.core.errors import UserError
from dihal_bench.results.table import TableCell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Array = NDArray[np.float64]
LEAST = 3  # candidates; the rank correlation of two is always 1 or -1
TOP = 3
_ROUNDING = 1e-12
_DIGITS = 9  # to which values are equal: a tie must not be broken by rounding


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a predictor says of the candidates; higher is better.

    Attributes:
        values: from all data, [L].
        draws: of every subsample of activations, [R, L]; one row where it has no spread.
        orders: whether it ranks all candidates, or only selects one (the largest value).
    """

    values: Array
    draws: Array
    orders: bool = True

    @classmethod
    def of(cls, values: Sequence[float] | Array, draws: Array | None = None) -> Prediction:
        """Of values, and of their subsamples if there are any."""
        own = np.asarray(values, dtype=np.float64)
        return cls(values=own, draws=own[None] if draws is None else draws)

    @classmethod
    def choice(cls, index: int, count: int) -> Prediction:
        """Of a rule that selects one of ``count`` candidates and says nothing of the others."""
        own = np.zeros(count)
        own[index] = 1.0
        return cls(values=own, draws=own[None], orders=False)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A statistic with its 95 % interval, None where it is undefined.

    Attributes:
        value: from all data.
        lo: lower end.
        hi: upper end.
    """

    value: float | None
    lo: float | None
    hi: float | None

    @property
    def cell(self) -> TableCell | None:
        """What stands in a table: without the ends of an interval in which nothing varied."""
        ends = (self.lo, self.hi) if self.lo != self.hi else (None, None)
        return None if self.value is None else TableCell(self.value, *ends)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A predictor (higher: better) against losses (lower: better) of the same candidates.

    Attributes:
        spearman: rank correlation of the predictor with minus the loss; undefined where one of the
            two does not vary, or the predictor only selects.
        kendall: tau-b of the same.
        partial: Spearman's given the depth; undefined where predictor or loss is monotone in the
            depth, so that no candidate tells them apart.
        advantage: Kendall's tau-b minus that of the rival, in pairs.
        predicted: index of the predictor's best candidate; of equal ones the first.
        observed: index of the least loss; of equal ones the first.
        rank_gap: candidates that are better than the predicted one, 0 where it is the best.
        regret: its loss minus the least.
        hit: whether it is among the ``TOP`` best.
    """

    spearman: Interval
    kendall: Interval
    partial: Interval
    advantage: Interval
    predicted: int
    observed: int
    rank_gap: Interval
    regret: Interval
    hit: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def agreements(
    predictions: Mapping[str, Prediction],
    losses: Array,
    depth: Sequence[float],
    *,
    rival: str,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Agreement]:
    """Compare predictors with losses, all in the same resamples.

    A resample takes the predictor of one subsample of activations, and the mean loss of trainings
    drawn with replacement. Of few trainings it sees too little of their spread, as every bootstrap
    does.

    Args:
        predictions: by name.
        losses: of every training, [seeds, L].
        depth: of the candidates, [L], or whatever orders them.
        rival: name of the prediction that all are compared with.
        resamples: how many.
        seed: of the resamples.

    Raises:
        UserError: lengths differ, there are fewer than three candidates, or a value is not finite.
    """
    losses, order = np.asarray(losses, dtype=np.float64), np.asarray(depth, dtype=np.float64)
    _check(predictions, losses, order)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(losses), size=(resamples, len(losses)))
    mean = losses.mean(0)
    redrawn = losses[drawn].mean(1)  # (resamples, L)
    shares = generator.random(resamples)  # the same subsample for all predictors that have as many
    found = {}
    rivals = _statistics(predictions[rival], shares, mean, redrawn, order)["kendall"]
    for name, prediction in predictions.items():
        own = _statistics(prediction, shares, mean, redrawn, order)
        own["advantage"] = own["kendall"] - rivals
        best = int(prediction.values.argmax())
        found[name] = Agreement(
            **{key: interval(values) for key, values in own.items()},
            predicted=best,
            observed=int(mean.argmin()),
            hit=bool(rank_gap(mean, best) < TOP),
        )
    return found


def _statistics(
    prediction: Prediction, shares: Array, mean: Array, redrawn: Array, order: Array
) -> dict[str, Array]:
    """Return each statistic of all data and then of every resample, [1 + resamples]."""
    draws = prediction.draws[(shares * len(prediction.draws)).astype(int)]
    values = np.concatenate([prediction.values[None], draws])
    losses = np.concatenate([mean[None], redrawn])
    best = values.argmax(-1)
    undefined = np.full(len(values), np.nan)
    return {
        "spearman": spearman(values, -losses) if prediction.orders else undefined,
        "kendall": kendall(values, -losses) if prediction.orders else undefined,
        "partial": partial_spearman(values, -losses, order) if prediction.orders else undefined,
        "rank_gap": rank_gap(losses, best),
        "regret": np.take_along_axis(losses, best[:, None], -1)[:, 0] - losses.min(-1),
    }


def _check(predictions: Mapping[str, Prediction], losses: Array, order: Array) -> None:
    for name, prediction in predictions.items():
        sizes = {prediction.values.shape[-1], prediction.draws.shape[-1], losses.shape[-1]}
        if sizes != {len(order)}:
            raise UserError(
                f"{name}: {prediction.values.shape[-1]} predictions, {losses.shape[-1]} losses and "
                f"{len(order)} depths cannot be compared; give one of each per candidate."
            )
        if not (np.isfinite(prediction.values).all() and np.isfinite(prediction.draws).all()):
            raise UserError(f"{name} is not a finite number somewhere; leave that candidate out.")
    if len(order) < LEAST:
        raise UserError(
            f"{len(order)} candidates have no rank correlation that means anything; give at least "
            f"{LEAST}."
        )
    if not np.isfinite(losses).all():
        raise UserError("A loss is not a finite number; leave that candidate out.")


def spearman(a: Array, b: Array) -> Array:
    """Return Spearman's rank correlation over the last axis, NaN where one side does not vary."""
    ranks = [stats.rankdata(_rounded(x), axis=-1) for x in np.broadcast_arrays(a, b)]
    centred = [r - r.mean(-1, keepdims=True) for r in ranks]
    product = (centred[0] * centred[1]).sum(-1)
    return _over(product, (centred[0] ** 2).sum(-1) * (centred[1] ** 2).sum(-1))


def kendall(a: Array, b: Array) -> Array:
    """Return Kendall's tau-b over the last axis, NaN where one side does not vary."""
    rounded = [_rounded(x) for x in np.broadcast_arrays(a, b)]
    signs = [np.sign(x[..., :, None] - x[..., None, :]) for x in rounded]
    product = (signs[0] * signs[1]).sum((-1, -2))
    return _over(product, (signs[0] ** 2).sum((-1, -2)) * (signs[1] ** 2).sum((-1, -2)))


def partial_spearman(a: Array, b: Array, given: Array) -> Array:
    """Return Spearman's correlation of ``a`` and ``b`` given a third; NaN where it is undefined.

    It is where a or b is monotone in the third: all that they have in common is in it then.
    """
    ab, ag, bg = spearman(a, b), spearman(a, given), spearman(b, given)
    return np.clip(_over(ab - ag * bg, (1 - ag**2) * (1 - bg**2)), -1, 1)


def rank_gap(losses: Array, best: NDArray[np.int64] | int) -> Array:
    """Return how many candidates have a lower loss than the one at ``best``, over the last axis."""
    own = np.take_along_axis(losses, np.asarray(best)[..., None], -1)
    return np.asarray((losses < own).sum(-1), dtype=np.float64)


def _rounded(values: Array) -> Array:
    """Return values of which those that differ by rounding alone are equal."""
    size = np.abs(values).max(-1, keepdims=True)
    return np.round(values / np.where(size > 0, size, 1), _DIGITS)


def _over(product: Array, square: Array) -> Array:
    """Return the product over the root of the square, NaN where that is nothing."""
    defined = square > _ROUNDING
    return np.where(defined, product / np.sqrt(np.where(defined, square, 1)), np.nan)


def interval(values: Array) -> Interval:
    """Return the first with the percentiles of the others that are defined."""
    value, known = float(values[0]), values[1:][~np.isnan(values[1:])]
    if np.isnan(value):
        return Interval(value=None, lo=None, hi=None)
    if not len(known):
        return Interval(value=value, lo=None, hi=None)
    lo, hi = np.percentile(known, (2.5, 97.5))
    return Interval(value=value, lo=float(lo), hi=float(hi))
