"""The columns of comparisons and of the leaderboard: facts of a row, and metrics between them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dihal_bench.results.metrics import BRIER1, HIGHER, LOWER, METRICS, NLL, Shown
from dihal_bench.results.table import Column, numbers, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dihal_bench.results.metric import Metric

_count = partial(Column, type="integer")
_size = partial(Column, type="tokens")
_number = partial(Column, type="number")

_ROW = Column(
    *("row", "row"),
    "the teacher; an interface and the blocks (a, b] that it replaces, those above layer "
    "a up to layer b; or a control beside one",
)
_RANK = _count("rank", "rank", "by Brier-1, and among what: equal S, as many replaced blocks")
_REPLACED = _count("replaced", "replaced", "blocks of the backbone that it stands in for")
_STEPS = _count("steps", "S", "network evaluations per chain")
_CHAINS = _count("chains", "K", "chains of the ensemble")
_NFE = _count("nfe", "NFE", "network evaluations in all, a decoder's included")
_KIND = Column("kind", "kind", "exact, or ensemble(K): kinds are not compared by NLL")
_SEEDS = _count("seeds", "seeds", "trainings behind the row")
_TOKENS = _size("n", "n", "scored tokens")
_SEEN = _size("diffusion_tokens", "diffusion tokens", "seen while the trunk was trained")
_CODE = (
    Column("dtype", "dtype", "of the backbone's arithmetic"),
    Column("versions", "code", "version and commit that made the row"),
)
_RATIO = "FLOPs of a chain over those of the replaced blocks"
_WORK = (
    Column("gain_over", "over", "the control that the gain is over"),
    _REPLACED,
    _count("retained", "retained", "blocks of the backbone that are executed"),
    _number("flop_ratio", "FLOP ratio", _RATIO, better=LOWER, digits=2),
    *(_STEPS, _CHAINS, _NFE, _KIND),
)
_ORACLE = (
    "how often the recovery, given the true signal, names the teacher's token, or the text's: its "
    "ceiling"
)
_HALF = (
    "standard deviation of noise on the true signal, in units of the signal's, at which the oracle "
    "is down to half"
)
_BESIDE = (
    _size("recovery_tokens", "recovery tokens", "seen while the recovery was trained", brief=False),
    _size("trunk", "trunk", "parameters of the denoiser", brief=False),
    _size("recovery", "recovery", "parameters trained besides", brief=False),
    Column("flops", "training FLOPs", "of all phases, mean over seeds", type="flops", brief=False),
    _count("seconds", "seconds", "of training, mean over seeds", brief=False),
    _number("oracle", "oracle", _ORACLE, better=HIGHER, digits=4, brief=False),
    _number("sigma_half", "σ½", _HALF, digits=2, brief=False),
)
TASK_ROW = (_ROW, _STEPS, _CHAINS)
TASK_COSTS = (_REPLACED, _NFE, _KIND, _SEEDS, _TOKENS, *_CODE)


def ranked_first(table: Shown) -> list[Metric]:
    """Return a table's metrics: what rows are ranked by comes before all others."""
    return sorted(METRICS.shown_in(table), key=lambda metric: not metric.ranked)


def likelihood_columns() -> list[Column]:
    """Return the columns of the leaderboard's tables of the runs' own text."""
    return list(_columns(Shown.LEADERBOARD, signed=False))


def _columns(table: Shown, *, signed: bool) -> Iterator[Column]:
    shown = [(m, Column.of(m, signed=signed and m.signed)) for m in ranked_first(table)]
    yield from (_ROW, _RANK)
    yield from (column for metric, column in shown if metric.brief and not metric.bound)
    yield from _WORK
    yield from (column for metric, column in shown if metric.bound)
    yield from (_SEEDS, _TOKENS, _SEEN, *_CODE)
    yield from (column for metric, column in shown if not metric.brief)
    yield from _BESIDE


def compared_columns() -> list[Column]:
    """Return the columns of a comparison: the leaderboard's, and differences to the reference."""
    shared = [own for own in _columns(Shown.COMPARISON, signed=True) if own not in _CODE]
    return [
        *map(words, ("block", "interface", "role")),
        *shared,
        _difference(NLL, "versus", f"Δ{NLL.title}"),
        _difference(BRIER1, "brier1_versus", f"Δ{BRIER1.title}"),
        numbers("oracle_kl", "oracle KL", type="significant", digits=1),
        words("course", "Brier-1 at 25/50/100 %"),
        *map(words, ("ties", "budget")),
    ]


def pair_columns() -> list[Column]:
    """Return the columns of interfaces against their own controls."""
    return [
        words("block"),
        *TASK_ROW,
        words("against"),
        *(_difference(own, own.name, f"{own.title} minus its") for own in (NLL, BRIER1)),
    ]


def _difference(metric: Metric, key: str, title: str) -> Column:
    return Column.of(metric, key=key, title=title, signed=True)


def of_task(name: str, unit: str) -> Column:
    """Return the column of a task's metric."""
    return Column.of(METRICS.named(name, unit), key=f"metric:{name}", title=name)
