"""The table of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.results.document_sums import SAMPLED
from dihal_bench.results.metrics import (
    METRICS,
    NLL,
    NLL_MINUS_INTERFACE,
    SEQUENCE_PREFIX,
    Shown,
    base_name,
)
from dihal_bench.results.table import (
    FLAGS,
    UNCONVERGED,
    Column,
    Table,
    TableCell,
    TableRow,
    cell_text,
    numbers,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dihal_bench.results.record import Score
    from dihal_bench.results.table import Value

ROW, STEPS, KIND = words("row"), numbers("steps", "S", type="integer"), words("kind")
_SIZES = (1, 8, 32)  # of ensembles that have a line of their own
_Key = tuple[str, int, int, str]


def run_table(scores: Sequence[Score], order: Sequence[str]) -> Table:
    """Return the table of a run: a row per subject, steps, ensemble size and signal.

    Args:
        scores: of one task and one regime.
        order: subjects from top to bottom.
    """
    lines: dict[_Key, dict[str, Score]] = {}
    for score in scores:
        key = (score.subject, score.steps, score.chains, score.signal)
        lines.setdefault(key, {})[base_name(score.metric)] = score
    keys = sorted(lines, key=lambda k: (order.index(k[0]), k[3] != SAMPLED, k[1], k[2]))
    most = {k[:2]: max(o[2] for o in keys if o[:2] == k[:2]) for k in keys}
    shown = [k for k in keys if k[2] in (*_SIZES, most[k[:2]])]
    rows = [TableRow(cells=_cells(key, lines[key])) for key in shown]
    return Table(columns=[ROW, STEPS, KIND, *metric_columns(Shown.RUN, scores)], rows=rows)


def metric_columns(table: Shown, scores: Sequence[Score]) -> list[Column]:
    """Return the columns of a table's metrics; of what is scored on first tokens alone says so."""
    first = {base_name(s.metric) for s in scores if s.metric.startswith(SEQUENCE_PREFIX)}
    return [
        Column.of(m, key=m.key, title=f"first-token {m.title}" if m.key in first else m.title)
        for m in METRICS.shown_in(table)
    ]


def _cells(key: _Key, scores: Mapping[str, Score]) -> dict[str, Value]:
    subject, steps, chains, signal = key
    nll = scores.get(NLL.key)
    exact = (nll or next(iter(scores.values()))).kind == "exact"
    unsure = nll is not None and not nll.details.get("converged", True)
    cells: dict[str, Value] = {
        "row": subject if signal == SAMPLED else f"{subject}, signal {signal}",
        "steps": None if exact and steps <= 1 else steps,
        "kind": "exact" if exact else f"ensemble({chains})",
        NLL_MINUS_INTERFACE.key: "reference" if nll else "no likelihood",
    }
    for metric in METRICS.shown_in(Shown.RUN):
        own = scores.get(metric.key)
        if own is not None:
            flag = UNCONVERGED if unsure and own is nll else ""
            cells[metric.key] = TableCell.of(own, flag) if metric.wide else own.value
    return cells


def task_table(scores: Sequence[Score], order: Sequence[str]) -> Table:
    """Return scores of any metrics: a row per metric, a column per subject and steps."""
    rows: dict[str, dict[str, Value]] = {}
    for score in sorted(scores, key=lambda s: (order.index(s.subject), s.steps)):
        filtered = score.details.get("filter", "none")
        name = score.metric if filtered == "none" else f"{score.metric} ({filtered})"
        row = score.subject if score.subject == order[0] else f"{score.subject} S={score.steps}"
        column = Column.of(METRICS.named(score.metric, score.unit))
        cell = cell_text(TableCell.of(score), column)
        rows.setdefault(name, {"metric": name})[f"of {row}"] = cell
    subjects = dict.fromkeys(key for cells in rows.values() for key in cells if key != "metric")
    return Table(
        columns=[
            words("metric", "score [95 %]"),
            *(numbers(key, key.removeprefix("of ")) for key in subjects),
        ],
        rows=[TableRow(cells=cells) for cells in rows.values()],
    )


LEGEND = (
    "ΔNLL: the row's minus the reference row's (positive: worse); KL and top-1 agreement: with the "
    "teacher",
    FLAGS[UNCONVERGED],
)
