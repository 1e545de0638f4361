"""The scores of a run as a model card shows them: results for the hub, tables, gains in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import escaped, one_line
from dihal_bench.reporting.hub.origin import hub_dataset
from dihal_bench.reporting.run_table import KIND, ROW, STEPS, metric_columns
from dihal_bench.reporting.writers import text
from dihal_bench.results.document_sums import SAMPLED
from dihal_bench.results.metrics import DIFFUSION_GAIN, METRICS, SEQUENCE_PREFIX, Shown, base_name
from dihal_bench.results.table import (
    FLAGS,
    UNCONVERGED,
    Column,
    Table,
    TableCell,
    TableRow,
    cell_text,
    numbers,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from huggingface_hub import EvalResult

    from dihal_bench.results.record import Record, Score

_OWN = (SAMPLED, "generated")  # signals that are the interface's own; others are trials
_CHAINS, _NFE = numbers("chains", "K", type="integer"), numbers("nfe", "NFE")
_N = numbers("n", type="tokens")


def eval_results(record: Record) -> list[EvalResult]:
    """Return one result per score of the interface, with its own signal, that can be compared."""
    from huggingface_hub import EvalResult

    name = record.data["interface"]["name"]
    return [
        EvalResult(
            task_type="text-generation",
            metric_type=score.metric,
            metric_value=score.value,
            metric_name=one_line(_name(score)),
            metric_args=_settings(score),
            **_dataset(record, score),
        )
        for score in record.scores
        if score.subject == name and score.signal in _OWN and _compared(score)
    ]


def tables(record: Record) -> list[str]:
    """Return a table per task: a line per row, steps, chains and signal, intervals in brackets."""
    found = [_LEGEND]
    shown = {metric.key for metric in METRICS.shown_in(Shown.CARD)}
    for task in dict.fromkeys(score.task for score in record.scores):
        scores = [s for s in record.scores if s.task == task and base_name(s.metric) in shown]
        if scores:
            columns = [ROW, STEPS, _CHAINS, _NFE, KIND, _N, *metric_columns(Shown.CARD, scores)]
            table = Table(columns=columns, rows=_rows(record, scores))
            found += [f"On {escaped(task)}:", text(table, "github")]
    return found


def gains(record: Record) -> str:
    """Say what noise bought, or cost, beside the best control without diffusion."""
    found = [score for score in record.scores if base_name(score.metric) == DIFFUSION_GAIN.key]
    said = [f"- {_gain(score)}" for score in found]
    if not said:
        return (
            "There is no likelihood beside that of a control without diffusion in this record, so "
            "nothing is known of it."
        )
    intro = "NLL of the best control at no more network evaluations, minus the row's:"
    return "\n".join([intro, "", *said])


_LEGEND = (
    "S: network evaluations per chain; K: chains; NFE: network evaluations in all; in brackets: "
    "95 % intervals; n: what a score is over. Top-1 is agreement with the teacher; Brier-1 of a "
    "diffusion row is an unbiased estimate. Entropy and generative perplexity are read together: "
    "whoever repeats himself has a low one of both. "
    f"{escaped(FLAGS[UNCONVERGED])} All other scores are in record.json."
)


def _compared(score: Score) -> bool:
    """Whether a score can be compared with those of other models: it is no difference."""
    metric = METRICS.named(score.metric)
    return Shown.CARD in metric.shown and metric.brief and not metric.signed


def _kind(score: Score) -> str:
    return f"ensemble({score.chains})" if score.kind == "ensemble" else score.kind


def _name(score: Score) -> str:
    first = "first-token " if score.metric.startswith(SEQUENCE_PREFIX) else ""
    title = METRICS.named(score.metric).title
    return f"{first}{title} ({_kind(score)}, S={score.steps}, K={score.chains})"


def _settings(score: Score) -> dict[str, Any]:
    judge = {"judge": score.details["judge"]} if "judge" in score.details else {}
    interval = {} if score.lo is None or score.hi is None else {"lo": score.lo, "hi": score.hi}
    return {
        "kind": score.kind,
        "steps": score.steps,
        "chains": score.chains,
        "nfe": score.nfe,
        "n": score.n,
        "unit": one_line(score.unit),
        **interval,
        **{key: one_line(value) for key, value in judge.items()},
        "regime": one_line(score.regime),
        "dtype": one_line(score.dtype),
        "scorer": score.version,
    }


def _dataset(record: Record, score: Score) -> dict[str, Any]:
    """Name the text as the hub does where it is one of its data sets; else by the task alone."""
    repository = hub_dataset(record.data)
    task = one_line(score.task)
    if repository is None or score.task != f"{record.data['corpus']['name']}:validation":
        return {"dataset_type": task, "dataset_name": task}
    notes = {key: record.data["corpus"]["notes"].get(key) for key in ("config", "revision")}
    return {
        "dataset_type": repository,
        "dataset_name": repository,
        "dataset_split": "validation",
        **{f"dataset_{key}": one_line(value) for key, value in notes.items() if value},
    }


def _rows(record: Record, scores: Iterable[Score]) -> list[TableRow]:
    own = record.data["interface"]
    order = ["teacher", own["name"], *own["controls"]]
    rows: dict[tuple[int, str, bool, int, int, str], list[Score]] = {}
    for score in scores:
        place = order.index(score.subject) if score.subject in order else len(order)
        trial = score.signal not in _OWN
        key = (place, score.subject, trial, score.steps, score.chains, score.signal)
        rows.setdefault(key, []).append(score)
    return [_row(rows[key]) for key in sorted(rows)]


def _row(scores: list[Score]) -> TableRow:
    first = scores[0]
    trial = "" if first.signal in _OWN else f", signal {first.signal}"
    laws = [score for score in scores if score.kind not in ("estimate", "bound")]
    return TableRow(
        cells={
            "row": first.subject + trial,
            "steps": first.steps,
            "chains": first.chains,
            "nfe": ", ".join(dict.fromkeys(str(score.nfe) for score in scores)),
            "kind": _kind((laws or scores)[0]),
            "n": ", ".join(dict.fromkeys(f"{score.n:,}" for score in scores)),
            **{base_name(score.metric): _cell(score) for score in scores},
        }
    )


def _cell(score: Score) -> TableCell | None:
    unsure = score.details.get("converged") is False
    return TableCell.of(score, UNCONVERGED if unsure else "")


def _gain(score: Score) -> str:
    where = f"{escaped(score.subject)}, S={score.steps}, K={score.chains}, on {escaped(score.task)}"
    control = escaped(score.details["control"])
    shown = cell_text(TableCell.of(score), Column.of(DIFFUSION_GAIN))
    number = escaped(f"{shown} {score.unit}")
    return f"{where}: {_verdict(score)} {control}: {number}."


def _verdict(score: Score) -> str:
    """Return what a gain amounts to; one whose sign the interval leaves open is no gain."""
    if score.lo is None or score.hi is None:
        side = "below" if score.value > 0 else "not below"
        return f"no interval, and the NLL is {side} that of"
    if score.lo > 0:
        return "diffusion gains over"
    if score.hi < 0:
        return "diffusion LOSES to"
    lean = "ahead of" if score.value > 0 else "behind"
    return f"undecided, the estimate is {lean}"
