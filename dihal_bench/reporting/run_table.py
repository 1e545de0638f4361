"""The table of a run."""

from __future__ import annotations

from collections import defaultdict
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
    from collections.abc import Iterable, Sequence

    from dihal_bench.results.record import Score
    from dihal_bench.results.table import Value

ROW, KIND = words("row"), words("kind")
STEPS, CHAINS = numbers("steps", "S", type="integer"), numbers("chains", "K", type="integer")
OWN = (SAMPLED, "generated")  # signals that are the interface's own; others are trials
_SIZES = (1, 8, 32)  # of ensembles that have a line of their own


def run_table(scores: Sequence[Score], order: Sequence[str]) -> Table:
    """Return the table of a run: a row per subject, steps, ensemble size and signal.

    Args:
        scores: of one task and one regime.
        order: subjects from top to bottom.
    """
    most: dict[tuple[str, int], int] = {}
    for score in scores:
        key = score.subject, score.steps
        most[key] = max(score.chains, most.get(key, 0))
    shown = [s for s in scores if s.chains in (*_SIZES, most[s.subject, s.steps])]
    rows = [TableRow(cells=_brief(cells)) for cells in rows_of(shown, order)]
    return Table(columns=[ROW, STEPS, KIND, *metric_columns(Shown.RUN, scores)], rows=rows)


def metric_columns(table: Shown, scores: Sequence[Score]) -> list[Column]:
    """Return the columns of a table's metrics; of what is scored on first tokens alone says so."""
    first = {base_name(s.metric) for s in scores if s.metric.startswith(SEQUENCE_PREFIX)}
    return [
        Column.of(m, key=m.key, title=f"first-token {m.title}" if m.key in first else m.title)
        for m in METRICS.shown_in(table)
    ]


def rows_of(scores: Iterable[Score], order: Sequence[str]) -> list[dict[str, Value]]:
    """Return the cells of every subject, steps, ensemble size and signal, trials last.

    Args:
        scores: of one task.
        order: subjects from top to bottom; others come after them.
    """
    rows: dict[tuple[int, str, bool, int, int, str], list[Score]] = defaultdict(list)
    for own in scores:
        place = order.index(own.subject) if own.subject in order else len(order)
        trial = own.signal not in OWN
        rows[place, own.subject, trial, own.steps, own.chains, own.signal].append(own)
    return [_cells(rows[key]) for key in sorted(rows, key=lambda key: key[:-1])]


def _cells(scores: list[Score]) -> dict[str, Value]:
    first = scores[0]
    trial = "" if first.signal in OWN else f", signal {first.signal}"
    laws = [score for score in scores if score.kind not in ("estimate", "bound")]
    return {
        "row": first.subject + trial,
        "steps": first.steps,
        "chains": first.chains,
        "nfe": ", ".join(dict.fromkeys(str(score.nfe) for score in scores)),
        "kind": kind_of((laws or scores)[0]),
        "n": ", ".join(dict.fromkeys(f"{score.n:,}" for score in scores)),
        **{base_name(score.metric): _cell(score) for score in scores},
    }


def kind_of(score: Score) -> str:
    """Return of what kind a number is; of an ensemble, of how many chains."""
    return f"ensemble({score.chains})" if score.kind == "ensemble" else score.kind


def _cell(score: Score) -> TableCell | None:
    return TableCell.of(score, UNCONVERGED if score.details.get("converged") is False else "")


def _brief(cells: dict[str, Value]) -> dict[str, Value]:
    """Return a row's cells for a narrow table: most intervals are left out."""
    row = TableRow(cells=cells)
    narrow = [metric.key for metric in METRICS.shown_in(Shown.RUN) if not metric.wide]
    single = row.value("kind") == "exact" and row.value("steps") <= 1
    return {
        NLL_MINUS_INTERFACE.key: "reference" if NLL.key in cells else "no likelihood",
        **cells,
        **{key: row.value(key) for key in narrow},
        "steps": None if single else row.value("steps"),
    }


def task_table(scores: Sequence[Score], order: Sequence[str]) -> Table:
    """Return scores of any metrics: a row per metric, a column per subject and steps."""
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    for score in sorted(scores, key=lambda s: (order.index(s.subject), s.steps)):
        filtered = score.details.get("filter", "none")
        name = score.metric if filtered == "none" else f"{score.metric} ({filtered})"
        row = score.subject if score.subject == order[0] else f"{score.subject} S={score.steps}"
        column = Column.of(METRICS.named(score.metric, score.unit))
        rows[name][row] = cell_text(TableCell.of(score), column)
    return Table.of(
        rows.items(),
        (words("metric", "score [95 %]"), lambda row: row[0]),
        *(
            (numbers(f"of {subject}", subject), lambda row, own=subject: row[1].get(own))
            for subject in dict.fromkeys(own for cells in rows.values() for own in cells)
        ),
    )


LEGEND = (
    "ΔNLL: the row's minus the reference row's (positive: worse); KL and top-1 agreement: with the "
    "teacher",
    FLAGS[UNCONVERGED],
)
