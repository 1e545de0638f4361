"""What a person sees of samples: metrics, what fooled them, rows without a model, the frontier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dihal_bench.evaluation.likelihood import TEACHER
from dihal_bench.reporting.writers import text
from dihal_bench.results.metrics import ENERGY, GEN_PPL_AT_ENTROPY, HIGHER, LOWER, MAUVE, METRICS
from dihal_bench.results.table import (
    FLAGS,
    PUBLISHED,
    Column,
    Table,
    TableCell,
    TableRow,
    cell_text,
    numbers,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dihal_bench.evaluation.samples.frontier import Point
    from dihal_bench.results.record import Score
    from dihal_bench.results.table import Value

_BEST = {LOWER: "lowest", HIGHER: "highest", None: "real text's"}
_MORE = {  # metrics with a second row
    MAUVE.key: ("MAUVE over seeds", "{least:.2f} to {largest:.2f}"),
    ENERGY.key: ("energy, p", "{p:.3f}"),
}
_Measures = Mapping[str, Mapping[str, Any]]


def show_samples(scores: Sequence[Score], audit: Mapping[str, Any], order: Sequence[str]) -> str:
    """Return the tables of a task: a line per metric and what fooled it; rows without a model.

    Args:
        scores: of the task.
        audit: what the record keeps of it beside the scores.
        order: subjects from left to right.
    """
    subjects: dict[str, dict[str, Mapping[str, Any]]] = {"real text": dict(audit["data"])}
    for score in sorted(scores, key=lambda s: (order.index(s.subject), s.steps)):
        if score.metric != GEN_PPL_AT_ENTROPY.key:
            nfe = "" if score.subject == TEACHER else f"\nNFE {score.nfe}"
            subjects.setdefault(score.subject + nfe, {})[score.metric] = asdict(score)
    found = {name for own in subjects.values() for name in own}
    declared = [metric.key for metric in METRICS if metric.key in found]
    names = [*declared, *sorted(found - set(declared))]
    across = [numbers(f"of {row}", row) for row in subjects]
    columns = [words("metric"), words("best"), *across, words("fooled", "fooled by")]
    rows = [row for name in names for row in _rows(name, subjects, audit["verdicts"])]
    parts = [text(Table(columns=columns, rows=rows)), *_notes(scores, audit)]
    if audit["impostors"]:
        naive = _naive(audit["impostors"], declared)
        parts += ["", "Rows without a model", "", text(naive), FLAGS[PUBLISHED]]
    return "\n".join(parts)


def _rows(
    name: str, subjects: Mapping[str, _Measures], verdicts: Mapping[str, Any]
) -> Iterator[TableRow]:
    """Yield the row of a metric, and one more of what belongs to it."""
    metric = METRICS.named(name)
    column = Column.of(metric)
    cells: dict[str, Value] = {
        "metric": metric.title,
        "best": _BEST[metric.better] if metric.known else "",
        "fooled": _verdict(verdicts, name) if verdicts else None,
    }
    found = {row: own[name] for row, own in subjects.items() if name in own}
    yield TableRow(
        cells=cells | {f"of {row}": cell_text(_halved(own), column) for row, own in found.items()}
    )
    if name in _MORE:
        label, form = _MORE[name]
        others = {f"of {row}": form.format(**own["details"]) for row, own in found.items()}
        yield TableRow(cells={"metric": label, "best": "", **others, "fooled": ""})


def _halved(own: Mapping[str, Any]) -> TableCell:
    """Return a value with half of its interval: there is no room for both ends."""
    if own["lo"] is None or own["hi"] is None:
        return TableCell(own["value"])
    return TableCell(own["value"], spread=(own["hi"] - own["lo"]) / 2)


def _naive(impostors: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """Return the rows without a model; intervals would be of no use."""
    return Table.of(
        impostors,
        (words("row"), lambda own: TableCell(own["name"], flags=(PUBLISHED,) * own["published"])),
        *(
            (
                Column.of(metric, better=None, title=metric.title.replace(" ", "\n", 1)),
                lambda own, key=metric.key: own["measures"].get(key, {}).get("value"),
            )
            for metric in map(METRICS.__getitem__, names)
        ),
    )


def _verdict(verdicts: Mapping[str, Any], name: str) -> str:
    if name not in verdicts:
        return ""
    own = verdicts[name]
    said = f"{len(own['fooled'])}: {own['worst']}" if own["fooled"] else "none"
    return said + (f" (+{len(own['close'])} close)" if own["close"] else "")


def _notes(scores: Sequence[Score], audit: Mapping[str, Any]) -> list[str]:
    details = scores[0].details
    notes = [
        f"{details['samples']} samples of {details['tokens']} tokens, temperature "
        f"{details['temperature']:g}, top-p {details['top_p']:g}, prompts of {details['prefix']} "
        f"tokens; judge {details['judge']}; NFE: network evaluations per token; "
        f"{scores[0].dtype}, tokens drawn in float64; ±: half of the 95 % interval over samples, "
        "where one covers"
    ]
    if any(score.details.get("few") for score in scores if score.metric == MAUVE.key):
        notes.append(_FEW)
    return [*notes, _FOOLED] if audit["impostors"] else notes


_FEW = (
    "MAUVE: fewer than 1,000 samples a side bias it upwards; for comparison within this table at "
    "most"
)
_FOOLED = (
    "fooled by: rows without a model that the metric ranks above the teacher's samples at "
    "temperature 1, how many and which it likes best; close: ranked below, but their intervals "
    "overlap with the teacher's"
)


def show_frontier(scores: Sequence[Score], points: Sequence[Point], entropy: float) -> str:
    """Return the table of the frontier: every row's perplexity at the entropy of real text."""
    told = [score for score in scores if score.metric == GEN_PPL_AT_ENTROPY.key]
    found = {f"{score.subject} S={score.steps}": score for score in told}
    reached: dict[str, list[float]] = {}
    for point in points:
        reached.setdefault(point.row, []).append(point.entropy)
    title = f"gen-PPL at entropy {entropy:.2f} [95 %]"
    table = Table.of(
        reached.items(),
        (words("row"), lambda own: own[0]),
        (
            Column.of(GEN_PPL_AT_ENTROPY, title=title),
            lambda own: TableCell.of(found.get(own[0]) or found.get(f"{own[0]} S=1")),
        ),
        (words("entropies reached"), lambda own: f"{min(own[1]):.2f} to {max(own[1]):.2f}"),
    )
    beaten = sorted({name for own in told for name in own.details.get("fooled_by", ())})
    said = [f"below the teacher's curve, without a model: {', '.join(beaten)}"] if beaten else []
    return "\n".join([text(table), *said])
