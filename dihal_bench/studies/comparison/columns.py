"""The columns of comparisons and of the leaderboard: facts of a row, and metrics between them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dihal_bench.results.metrics import (
    BLOCK_BOUND,
    BRIER1,
    DIFFUSION_GAIN,
    HIGHER,
    LOWER,
    METRICS,
    NLL,
    Shown,
)
from dihal_bench.results.table import Column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dihal_bench.results.metric import Metric

_text = partial(Column, type="text")
_count = partial(Column, type="integer")
_size = partial(Column, type="tokens")
_number = partial(Column, type="number", digits=2)

_ROW = _text(
    key="row",
    title="row",
    help="the teacher; an interface and the blocks (a, b] that it replaces, those above layer "
    "a up to layer b; or a control beside one",
)
_RANK = _count(
    key="rank", title="rank", help="by Brier-1, and among what: equal S, as many replaced blocks"
)
_OVER = _text(key="gain_over", title="over", help="the control that the gain is over")
_STEPS = _count(key="steps", title="S", help="network evaluations per chain")
_CHAINS = _count(key="chains", title="K", help="chains of the ensemble")
_REPLACED = _count(
    key="replaced", title="replaced", help="blocks of the backbone that it stands in for"
)
_COST = (
    _REPLACED,
    _count(key="retained", title="retained", help="blocks of the backbone that are executed"),
    _number(
        key="flop_ratio",
        title="FLOP ratio",
        help="FLOPs of a chain over those of the replaced blocks",
        better=LOWER,
    ),
    _STEPS,
    _CHAINS,
)
_NFE = _count(key="nfe", title="NFE", help="network evaluations in all, a decoder's included")
_KIND = _text(key="kind", title="kind", help="exact, or ensemble(K): kinds are not compared by NLL")
_SEEDS = _count(key="seeds", title="seeds", help="trainings behind the row")
_TOKENS = _size(key="n", title="n", help="scored tokens")
_SEEN = _size(
    key="diffusion_tokens", title="diffusion tokens", help="seen while the trunk was trained"
)
_CODE = (
    _text(key="dtype", title="dtype", help="of the backbone's arithmetic"),
    _text(key="versions", title="code", help="version and commit that made the row"),
)
_BESIDE = (
    _size(
        key="recovery_tokens",
        title="recovery tokens",
        help="seen while the recovery was trained",
        brief=False,
    ),
    _size(key="trunk", title="trunk", help="parameters of the denoiser", brief=False),
    _size(key="recovery", title="recovery", help="parameters trained besides", brief=False),
    Column(
        key="flops",
        title="training FLOPs",
        help="of all phases, mean over seeds",
        type="flops",
        brief=False,
    ),
    _count(key="seconds", title="seconds", help="of training, mean over seeds", brief=False),
    _number(
        key="oracle",
        title="oracle",
        help="how often the recovery, given the true signal, names the teacher's token, or the "
        "text's: its ceiling",
        better=HIGHER,
        digits=4,
        brief=False,
    ),
    _number(
        key="sigma_half",
        title="σ½",
        help="standard deviation of noise on the true signal, in units of the signal's, at which "
        "the oracle is down to half",
        brief=False,
    ),
)
TASK_ROW = (_ROW, _STEPS, _CHAINS)
TASK_COSTS = (_REPLACED, _NFE, _KIND, _SEEDS, _TOKENS, *_CODE)


def ranked_first(table: Shown) -> list[Metric]:
    """Return a table's metrics: what rows are ranked by, what is brief, and all others."""
    return sorted(METRICS.shown_in(table), key=lambda metric: (not metric.ranked, not metric.brief))


def likelihood_columns() -> list[Column]:
    """Return the columns of the leaderboard's tables of the runs' own text."""
    return list(_columns(Shown.LEADERBOARD, signed=False))


def _columns(table: Shown, *, signed: bool) -> Iterator[Column]:
    found = {m.key: Column.of(m, signed=signed and m.signed) for m in ranked_first(table)}
    bound = found.pop(BLOCK_BOUND.key)
    yield from (_ROW, _RANK)
    for key, column in found.items():
        if column.brief:
            yield column
        if key == DIFFUSION_GAIN.key:
            yield _OVER
    yield from (*_COST, _NFE, _KIND, bound, _SEEDS, _TOKENS, _SEEN, *_CODE)
    yield from (column for column in found.values() if not column.brief)
    yield from _BESIDE


def compared_columns() -> list[Column]:
    """Return the columns of a comparison: the leaderboard's, and differences to the reference."""
    shared = [own for own in _columns(Shown.COMPARISON, signed=True) if own not in _CODE]
    return [
        _text(key="block", title="block"),
        _text(key="interface", title="interface"),
        _text(key="role", title="role"),
        *shared,
        _difference(NLL, "versus", f"Δ{NLL.title}"),
        _difference(BRIER1, "brier1_versus", f"Δ{BRIER1.title}"),
        _text(key="ties", title="ties"),
        Column(key="oracle_kl", title="oracle KL", type="significant", digits=1),
        _text(key="course", title="Brier-1 at 25/50/100 %"),
        _text(key="budget", title="budget"),
    ]


def pair_columns() -> list[Column]:
    """Return the columns of interfaces against their own controls."""
    return [
        _text(key="block", title="block"),
        *TASK_ROW,
        _text(key="against", title="against"),
        *(_difference(own, own.name, f"{own.title} minus its") for own in (NLL, BRIER1)),
    ]


def _difference(metric: Metric, key: str, title: str) -> Column:
    return Column.of(metric, key=key, title=title, signed=True)


def of_task(name: str, unit: str) -> Column:
    """Return the column of a task's metric."""
    return Column.of(METRICS.named(name, unit), key=f"metric:{name}", title=name)
