"""The columns of the leaderboard's tables: what they are, and which way is better."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dihal_bench.results.metrics import METRICS, Metric, Shown


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        key: of its cells.
        title: as it is shown.
        help: what it is, in a sentence.
        better: "higher", "lower", or None where neither is.
        type: "estimate" (with an interval), "number", "integer", "tokens", "flops" or "text".
        digits: after the point.
        likelihood: whether kinds must not be ranked against each other by it.
        brief: whether it stands where there is little room; CSV files have all columns.
    """

    key: str
    title: str
    help: str
    better: str | None = None
    type: str = "text"
    digits: int = 0
    likelihood: bool = False
    brief: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def _estimate(metric: Metric, *, key: str = "", title: str = "") -> Column:
    return Column(
        key=key or metric.name,
        title=title or metric.title,
        help=metric.help,
        better=metric.better,
        type="estimate",
        digits=metric.digits,
        likelihood=metric.likelihood,
        brief=metric.brief,
    )


def _count(
    key: str, title: str, text: str, type_: str = "integer", *, brief: bool = True
) -> Column:
    return Column(key=key, title=title, help=text, type=type_, brief=brief)


_HEAD = (
    Column(
        key="row",
        title="row",
        help="the teacher; an interface and the blocks (a, b] that it replaces, those above layer "
        "a up to layer b; or a control beside one",
    ),
    _count("rank", "rank", "by Brier-1, and among what: equal S, as many replaced blocks"),
)
_COSTS = (
    Column(key="gain_over", title="over", help="the control that the gain is over"),
    _count("replaced", "replaced", "blocks of the backbone that it stands in for"),
    _count("retained", "retained", "blocks of the backbone that are executed"),
    Column(
        key="flop_ratio",
        title="FLOP ratio",
        help="FLOPs of a chain over those of the replaced blocks",
        better="lower",
        type="number",
        digits=2,
    ),
    _count("steps", "S", "network evaluations per chain"),
    _count("chains", "K", "chains of the ensemble"),
    _count("nfe", "NFE", "network evaluations in all, a decoder's included"),
    Column(key="kind", title="kind", help="exact, or ensemble(K): kinds are not compared by NLL"),
)
_ORIGIN = (
    _count("seeds", "seeds", "trainings behind the row"),
    _count("n", "n", "scored tokens", "tokens"),
    _count("diffusion_tokens", "diffusion tokens", "seen while the trunk was trained", "tokens"),
    Column(key="dtype", title="dtype", help="of the backbone's arithmetic"),
    Column(key="versions", title="code", help="version and commit that made the row"),
)
_REST = (
    _count(
        *("recovery_tokens", "recovery tokens", "seen while the recovery was trained", "tokens"),
        brief=False,
    ),
    _count("trunk", "trunk", "parameters of the denoiser", "tokens", brief=False),
    _count("recovery", "recovery", "parameters trained besides", "tokens", brief=False),
    _count("flops", "training FLOPs", "of all phases, mean over seeds", "flops", brief=False),
    _count("seconds", "seconds", "of training, mean over seeds", brief=False),
    Column(
        key="oracle",
        title="oracle",
        help="how often the recovery, given the true signal, names the teacher's token, or the "
        "text's: its ceiling",
        better="higher",
        type="number",
        digits=4,
        brief=False,
    ),
    Column(
        key="sigma_half",
        title="σ½",
        help="standard deviation of noise on the true signal, in units of the signal's, at which "
        "the oracle is down to half",
        type="number",
        digits=2,
        brief=False,
    ),
)


def main_metrics() -> list[Metric]:
    """Return the metrics that readers compare rows by: what ranks comes first."""
    found = [m for m in METRICS.shown_in(Shown.LEADERBOARD) if m.brief and not m.bound]
    return sorted(found, key=lambda metric: not metric.ranked)


def likelihood_columns() -> list[Column]:
    """Return the columns of a likelihood table."""
    shown = METRICS.shown_in(Shown.LEADERBOARD)
    bounds = [_estimate(metric) for metric in shown if metric.bound]
    beside = [_estimate(metric) for metric in shown if not metric.brief]
    return [*_HEAD, *map(_estimate, main_metrics()), *_COSTS, *bounds, *_ORIGIN, *beside, *_REST]


def of_task(name: str, unit: str) -> Column:
    """Return the column of a task's metric, which is called what its scores are called."""
    return _estimate(METRICS.named(name, unit), key=f"metric:{name}", title=name)


def _facts(*keys: str) -> tuple[Column, ...]:
    return tuple(column for column in (*_HEAD, *_COSTS, *_ORIGIN) if column.key in keys)


TASK_ROW = _facts("row", "steps", "chains")
TASK_COSTS = _facts("kind", "nfe", "replaced", "seeds", "n", "dtype", "versions")
