"""How well a predictor's ranking of candidates agrees with their measured losses.

Rank statistics are scipy's. Candidates are few, and curves over layers smooth: the statistics come
with intervals and rivals, never with a p-value of their own (two random walks of 30 steps correlate
"significantly" most of the time).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dihal_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float64]
LEAST = 3  # candidates; the rank correlation of two is always 1 or -1
TOP = 3


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A predictor (higher: better) against losses (lower: better) of the same candidates.

    Attributes:
        spearman: rank correlation of the predictor with minus the loss; None: one does not vary.
        kendall: tau-b of the same.
        partial: Spearman's given the depth; None: undefined, since predictor or loss is monotone
            in the depth, so that no candidate tells them apart.
        predicted: index of the predictor's best candidate; of equal ones the first.
        observed: index of the least loss; of equal ones the first.
        rank_gap: candidates that are better than the predicted one, 0 where it is the best.
        regret: its loss minus the least.
        hit: whether it is among the ``TOP`` best.
    """

    spearman: float | None
    kendall: float | None
    partial: float | None
    predicted: int
    observed: int
    rank_gap: int
    regret: float
    hit: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def agreement(
    predictor: Sequence[float] | Array, loss: Sequence[float] | Array, depth: Sequence[float]
) -> Agreement:
    """Compare a predictor with losses.

    Args:
        predictor: one value per candidate, [L]; higher says better.
        loss: measured, [L].
        depth: of the candidates, [L], or whatever orders them.

    Raises:
        UserError: lengths differ, there are fewer than three candidates, or a value is not finite.
    """
    values, losses, order = (np.asarray(v, dtype=np.float64) for v in (predictor, loss, depth))
    if not len(values) == len(losses) == len(order):
        raise UserError(
            f"{len(values)} predictions, {len(losses)} losses and {len(order)} depths cannot be "
            "compared; give one of each per candidate."
        )
    if len(values) < LEAST:
        raise UserError(
            f"{len(values)} candidates have no rank correlation that means anything; give at least "
            f"{LEAST}."
        )
    if not (np.isfinite(values).all() and np.isfinite(losses).all()):
        raise UserError("A prediction or a loss is not a finite number; leave that candidate out.")
    best = int(values.argmax())
    gap = int((losses < losses[best]).sum())
    return Agreement(
        spearman=spearman(values, -losses),
        kendall=kendall(values, -losses),
        partial=partial_spearman(values, -losses, order),
        predicted=best,
        observed=int(losses.argmin()),
        rank_gap=gap,
        regret=float(losses[best] - losses.min()),
        hit=gap < TOP,
    )


def spearman(a: Array, b: Array) -> float | None:
    """Return Spearman's rank correlation, None where one side does not vary."""
    return None if _constant(a, b) else float(stats.spearmanr(a, b).statistic)


def kendall(a: Array, b: Array) -> float | None:
    """Return Kendall's tau-b, None where one side does not vary."""
    return None if _constant(a, b) else float(stats.kendalltau(a, b).statistic)


def partial_spearman(a: Array, b: Array, given: Array) -> float | None:
    """Return Spearman's correlation of ``a`` and ``b`` given a third; None where it is undefined.

    It is where a or b is monotone in the third: all that they have in common is in it then.
    """
    ab, ag, bg = spearman(a, b), spearman(a, given), spearman(b, given)
    if ab is None or ag is None or bg is None:
        return None
    rest = (1 - ag**2) * (1 - bg**2)
    if rest < _ROUNDING:
        return None
    return float(np.clip((ab - ag * bg) / math.sqrt(rest), -1, 1))


_ROUNDING = 1e-12


def _constant(a: Array, b: Array) -> bool:
    return bool(np.ptp(a) == 0 or np.ptp(b) == 0)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A statistic with its 95 % interval, None where it is undefined.

    Attributes:
        value: from all data.
        lo: lower end.
        hi: upper end.
        defined: share of the resamples in which the statistic is defined.
    """

    value: float | None
    lo: float | None
    hi: float | None
    defined: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def resampled(
    predictors: Array,
    losses: Array,
    depth: Sequence[float],
    *,
    value: Agreement,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return intervals of the statistics, over subsamples of activations and over trainings.

    A resample takes the predictor of one subsample, and the mean loss of trainings drawn with
    replacement. Of few trainings it sees too little of their spread, as every bootstrap does.

    Args:
        predictors: of every subsample, [R, L]; one row where a predictor has none.
        losses: of every training, [seeds, L].
        depth: of the candidates, [L].
        value: the agreement of all data together.
        resamples: how many.
        seed: of the resamples.
    """
    generator = np.random.default_rng(seed)
    rows = generator.integers(len(predictors), size=resamples)
    drawn = generator.integers(len(losses), size=(resamples, len(losses)))
    found = [
        agreement(predictors[row], losses[own].mean(0), depth)
        for row, own in zip(rows, drawn, strict=True)
    ]
    return {
        name: _interval([getattr(one, name) for one in found], getattr(value, name))
        for name in ("spearman", "kendall", "partial", "rank_gap", "regret")
    }


def _interval(values: Sequence[float | None], value: float | None) -> Interval:
    known = [v for v in values if v is not None]
    if value is None or not known:
        return Interval(value=value, lo=None, hi=None, defined=len(known) / len(values))
    lo, hi = np.percentile(known, (2.5, 97.5))
    return Interval(value=value, lo=float(lo), hi=float(hi), defined=len(known) / len(values))
