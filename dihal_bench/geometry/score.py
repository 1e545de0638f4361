"""Locate, part two: the score of a layer among its rivals, the selection, and how stable both are.

DiHAL, Section 3.2 (arXiv 2605.14368): S = z(kappa) + z(m) - z(r). A z-score is a property of the
whole candidate set, so a summary also says what is selected when any one candidate is left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from dihal_bench.core.errors import UserError
from dihal_bench.results.table import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from dihal_bench.geometry.proxies import LayerProxies

    Scores = Mapping[int, float]
    Floats = NDArray[np.float64]
    Resamples = Mapping[int, Sequence[LayerProxies]]

PROXIES = ("curvature", "stiffness", "effective_rank")

_REPORTED = (*PROXIES, "participation_ratio")
_INTERVAL = (2.5, 97.5)  # percent
_NO_SPREAD = 1e-12  # a relative range that rounding alone explains


@dataclass(frozen=True, kw_only=True)
class LayerScore:
    """One candidate layer over all resamples.

    Attributes:
        layer: the number of blocks below the boundary.
        curvature: kappa, its median over resamples.
        stiffness: m, its median over resamples.
        effective_rank: r, its median over resamples.
        participation_ratio: its median over resamples; not part of the score.
        score: S of the medians; its interval is of the scores computed within each resample.
        rank: of S among the candidates, 1 the best and ties the better rank.
        selected_share: fraction of the resamples whose own scores select this layer.
        selected_without: the selection when this layer is no candidate; None without another one.
        duplicates: rows removed as duplicates, the median over resamples.
        in_sample: whether any resample had n < 2 d, so that m says little.
    """

    layer: int
    curvature: Estimate
    stiffness: Estimate
    effective_rank: Estimate
    participation_ratio: Estimate
    score: Estimate
    rank: Estimate
    selected_share: float
    selected_without: int | None
    duplicates: float
    in_sample: bool


@dataclass(frozen=True, kw_only=True)
class ResampledScore:
    """The candidates' scores, the selection, and what it hangs on.

    Attributes:
        layers: one entry per candidate, in ascending order.
        resamples: how many subsamples the intervals are of.
        selected: the layer with the highest score; of equal ones the lowest.
        flips: whether leaving out a candidate that is not selected changes the selection.
        depth_correlation: Spearman's rank correlation of the score with minus the depth; near 1 the
            score says no more than "the earliest layer". None where it is undefined.
    """

    layers: tuple[LayerScore, ...]
    resamples: int
    selected: int
    flips: bool
    depth_correlation: float | None

    def scores(self) -> dict[int, float]:
        """S by layer, as `resolve_layer` takes it."""
        return {row.layer: row.score.value for row in self.layers}

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, ready for JSON."""
        return {**asdict(self), "layers": [asdict(row) for row in self.layers]}


def zscore(values: ArrayLike) -> Floats:
    """Standardise over the candidate set with the population's standard deviation (ddof = 0).

    Args:
        values: one number per candidate, [L].

    Returns:
        z, [L]; all zeros where the values differ by no more than rounding.

    Raises:
        UserError: If a value is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise UserError(f"A z-score of {array.tolist()} is undefined; leave that candidate out.")
    if np.ptp(array) <= _NO_SPREAD * np.abs(array).max():
        return np.zeros_like(array)
    standardised: Floats = (array - array.mean()) / array.std()
    return standardised


def layer_scores(curvature: ArrayLike, stiffness: ArrayLike, effective_rank: ArrayLike) -> Floats:
    """S = z(kappa) + z(m) - z(r), all three over the same candidates (DiHAL, Section 3.2).

    Args:
        curvature: kappa, [L].
        stiffness: m, [L].
        effective_rank: r, [L].

    Returns:
        S, [L]; higher is more diffusion-friendly.
    """
    return zscore(curvature) + zscore(stiffness) - zscore(effective_rank)


def resolve_layer(policy: str | int, blocks: int, scores: Scores | None) -> int:
    """The layer that a policy means for a backbone.

    Args:
        policy: "auto" (the highest score, of equal ones the lowest layer), "early"
            (max(1, N // 8)), "middle" (N // 2), "late" (N - max(1, N // 8)), or a layer's number,
            also as text.
        blocks: N, the backbone's number of blocks.
        scores: S by candidate layer; only "auto" needs them.

    Returns:
        A layer in 1..N-1.

    Raises:
        UserError: If the backbone has no inner layer, the policy is unknown, or it is outside.
    """
    if blocks < 2:
        raise UserError(
            f"--layer {policy} finds no layer inside {blocks} block; use a deeper backbone."
        )
    if isinstance(policy, str) and policy in _POLICIES:
        layer = _POLICIES[policy](blocks, scores)
    else:
        layer = _layer_number(policy, blocks)
    if not 1 <= layer < blocks:
        raise UserError(
            f"--layer {policy} is layer {layer}, outside this backbone; {_choices(blocks)}."
        )
    return layer


def _choices(blocks: int) -> str:
    return f"choose a layer from 1 to {blocks - 1} or one of {', '.join(_POLICIES)}"


def _layer_number(policy: str | int, blocks: int) -> int:
    try:
        if isinstance(policy, bool):
            raise TypeError
        return int(policy) if isinstance(policy, str) else index(policy)
    except (TypeError, ValueError):
        message = f"--layer {policy} is neither a number nor a policy; {_choices(blocks)}."
        raise UserError(message) from None


def _highest(blocks: int, scores: Scores | None) -> int:
    if not scores:
        raise UserError(
            f"--layer auto needs the layers' scores, and there are none; {_choices(blocks)}, "
            "or locate first."
        )
    layers = sorted(scores)
    return layers[int(np.argmax([scores[layer] for layer in layers]))]


_POLICIES: Mapping[str, Callable[[int, Scores | None], int]] = {
    "auto": _highest,
    "early": lambda blocks, _: max(1, blocks // 8),
    "middle": lambda blocks, _: blocks // 2,
    "late": lambda blocks, _: blocks - max(1, blocks // 8),
}


def summarise(resamples: Resamples) -> ResampledScore:
    """Score the candidates from repeated subsamples, and say how sure the selection is.

    Each proxy is first reduced to its median over the resamples, then standardised over the layers.
    Intervals of scores and ranks come from scores computed anew within each resample.

    Args:
        resamples: per candidate layer the proxies of each resample; the r-th entries of all layers
            belong to the same tokens.

    Returns:
        The summary.

    Raises:
        UserError: If there is no layer or no resample, or the layers differ in their number.
    """
    layers = sorted(resamples)
    draws = {name: _table(resamples, layers, name) for name in _REPORTED}  # of (R, L)
    medians = {name: np.median(table, axis=0) for name, table in draws.items()}  # of (L,)
    scores = layer_scores(*(medians[name] for name in PROXIES))
    rescores = np.stack([layer_scores(*row) for row in zip(*_three(draws), strict=True)])
    columns = {name: _estimates(medians[name], draws[name]) for name in _REPORTED}
    columns["score"] = _estimates(scores, rescores)
    columns["rank"] = _rank_estimates(scores, rescores)
    shares = np.bincount(rescores.argmax(axis=1), minlength=len(layers)) / len(rescores)
    without = _selected_without(layers, _three(medians))
    selected = layers[int(scores.argmax())]
    return ResampledScore(
        layers=tuple(
            LayerScore(
                layer=layer,
                **{name: column[i] for name, column in columns.items()},
                selected_share=float(shares[i]),
                selected_without=without[i],
                duplicates=float(np.median([proxies.duplicates for proxies in resamples[layer]])),
                in_sample=any(proxies.in_sample for proxies in resamples[layer]),
            )
            for i, layer in enumerate(layers)
        ),
        resamples=len(rescores),
        selected=selected,
        flips=any(without[i] != selected for i in range(len(layers)) if layers[i] != selected),
        depth_correlation=_rank_correlation(scores, -np.array(layers)),
    )


def _three(by_name: Mapping[str, Floats]) -> tuple[Floats, ...]:
    return tuple(by_name[name] for name in PROXIES)


def _table(resamples: Resamples, layers: list[int], name: str) -> Floats:
    """One proxy of every resample and layer, [R, L]."""
    counts = {len(resamples[layer]) for layer in layers}
    if len(counts) != 1 or 0 in counts:
        raise UserError(
            f"Layers have {sorted(counts)} resamples; give each the same, at least one."
        )
    rows = [[getattr(proxies, name) for proxies in resamples[layer]] for layer in layers]
    return np.array(rows, dtype=np.float64).T


def _estimates(values: Floats, draws: Floats, *, outward: bool = False) -> list[Estimate]:
    """Values with percentile intervals, [L] from [L] and [R, L]; outward ones stay on draws."""
    methods: tuple[Any, Any] = ("lower", "higher") if outward else ("linear", "linear")
    lo, hi = (
        np.percentile(draws, percent, axis=0, method=method)
        for percent, method in zip(_INTERVAL, methods, strict=True)
    )
    rows = zip(values.tolist(), lo.tolist(), hi.tolist(), strict=True)
    return [Estimate(value=value, lo=low, hi=high) for value, low, high in rows]


def _rank_estimates(scores: Floats, rescores: Floats) -> list[Estimate]:
    ranks, reranks = (stats.rankdata(-table, method="min", axis=-1) for table in (scores, rescores))
    return _estimates(ranks.astype(np.float64), reranks, outward=True)


def _selected_without(layers: list[int], proxies: tuple[Floats, ...]) -> list[int | None]:
    """The selection among the other candidates, for each candidate, [L]."""
    if len(layers) == 1:
        return [None]
    selected: list[int | None] = []
    for i in range(len(layers)):
        scores = layer_scores(*(np.delete(values, i) for values in proxies))
        selected.append(int(np.delete(layers, i)[scores.argmax()]))
    return selected


def _rank_correlation(a: Floats, b: NDArray[np.int64]) -> float | None:
    """Spearman's rank correlation, None where one side does not vary."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)
