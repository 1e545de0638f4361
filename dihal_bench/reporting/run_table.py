"""The table of a run as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.evaluation.likelihood import SAMPLED
from dihal_bench.results.metrics import (
    BRIER1,
    METRICS,
    NLL,
    NLL_MINUS_INTERFACE,
    SEQUENCE_PREFIX,
    TOP1,
    Shown,
    base_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dihal_bench.results.metrics import Metric
    from dihal_bench.results.record import Score

_SIZES = (1, 8, 32)  # of ensembles that have a line of their own
_Key = tuple[str, int, int, str]


def render(scores: Sequence[Score], order: Sequence[str]) -> str:
    """Return the table of a run as text: a line per subject, steps, ensemble size and signal.

    Args:
        scores: of one task and one regime.
        order: subjects from top to bottom.
    """
    from tabulate import tabulate

    lines: dict[_Key, dict[str, Score]] = {}
    for score in scores:
        key = (score.subject, score.steps, score.chains, score.signal)
        lines.setdefault(key, {})[base_name(score.metric)] = score
    keys = sorted(lines, key=lambda k: (order.index(k[0]), k[3] != SAMPLED, k[1], k[2]))
    most = {k[:2]: max(o[2] for o in keys if o[:2] == k[:2]) for k in keys}
    shown = [k for k in keys if k[2] in (*_SIZES, most[k[:2]])]
    first = "first-token " if scores and scores[0].metric.startswith(SEQUENCE_PREFIX) else ""
    metrics = [
        metric
        for metric in METRICS.shown_in(Shown.RUN)
        if any(metric.key in lines[key] for key in shown)
    ]
    table = [_line(key, lines[key], metrics, first) for key in shown]
    return str(tabulate(table, headers="keys", tablefmt="simple", disable_numparse=True))


def render_plain(scores: Sequence[Score], order: Sequence[str]) -> str:
    """Return scores of any metrics as text: a line per metric, a column per subject and steps."""
    from tabulate import tabulate

    lines: dict[str, dict[str, str]] = {}
    for score in sorted(scores, key=lambda s: (order.index(s.subject), s.steps)):
        filtered = score.details.get("filter", "none")
        name = score.metric if filtered == "none" else f"{score.metric} ({filtered})"
        row = score.subject if score.subject == order[0] else f"{score.subject} S={score.steps}"
        cell = _shown(score, METRICS.named(score.metric), wide=True)
        lines.setdefault(name, {"score [95 %]": name})[row] = cell
    names = dict.fromkeys(key for line in lines.values() for key in line)
    table = [{key: line.get(key, "") for key in names} for line in lines.values()]
    return str(tabulate(table, headers="keys", disable_numparse=True))


def _line(
    key: _Key, scores: Mapping[str, Score], metrics: Sequence[Metric], first: str
) -> dict[str, str]:
    subject, steps, chains, signal = key
    some = next(scores[metric.key] for metric in (NLL, BRIER1, TOP1) if metric.key in scores)
    exact = some.kind == "exact"
    line = {
        "row": subject if signal == SAMPLED else f"{subject}, signal {signal}",
        "S": "-" if exact and steps <= 1 else str(steps),
        "kind": "exact" if exact else f"ensemble({chains}){_unconverged(scores)}",
    }
    for metric in metrics:
        head = f"{first}{metric.title}" if metric is NLL else metric.title
        line[head + (" [95 %]" if metric.wide else "")] = (
            _versus(scores)
            if metric is NLL_MINUS_INTERFACE
            else _shown(scores.get(metric.key), metric, wide=metric.wide)
        )
    return line


def _unconverged(scores: Mapping[str, Score]) -> str:
    nll = scores.get(NLL.key)
    return "" if nll is None or nll.details.get("converged", True) else " ~"


def _versus(scores: Mapping[str, Score]) -> str:
    if NLL.key not in scores:
        return "no likelihood"
    own = scores.get(NLL_MINUS_INTERFACE.key)
    return _shown(own, NLL_MINUS_INTERFACE, wide=True) or "reference"


def _shown(score: Score | None, metric: Metric, *, wide: bool) -> str:
    """Return a value, with its interval where there is room; nothing for None."""
    if score is None:
        return ""
    form = f"{'+' if metric.signed else ''}.{metric.digits}f"
    known = wide and score.lo is not None and score.hi is not None
    return f"{score.value:{form}}" + (f" [{score.lo:{form}}, {score.hi:{form}}]" if known else "")
