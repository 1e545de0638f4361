"""The scores of a run as a model card shows them: results for the hub, tables, gains in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import escaped, one_line, table
from dihal_bench.reporting.hub.origin import hub_dataset
from dihal_bench.results.metrics import (
    DIFFUSION_GAIN,
    HIGHER,
    LOWER,
    METRICS,
    SEQUENCE_PREFIX,
    Shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from huggingface_hub import EvalResult

    from dihal_bench.results.metrics import Metric
    from dihal_bench.results.record import Record, Score

_OWN = ("sampled", "generated")  # signals that are the interface's own; others are trials


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
    shown = METRICS.shown_in(Shown.CARD)
    found = [_LEGEND.format(higher=_titles(shown, HIGHER), lower=_titles(shown, LOWER))]
    for task in dict.fromkeys(score.task for score in record.scores):
        scores = [s for s in record.scores if s.task == task and _metric(s) in shown]
        if scores:
            found += [f"On {escaped(task)}:", table(_lines(record, scores))]
    return found


def _titles(metrics: Iterable[Metric], better: str) -> str:
    return ", ".join(metric.title for metric in metrics if metric.better == better)


def gains(record: Record) -> str:
    """Say what noise bought, or cost, beside the best control without diffusion."""
    found = [score for score in record.scores if _metric(score) == DIFFUSION_GAIN]
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
    "95 % intervals; n: what a score is over. Higher is better for {higher}, lower for {lower}; "
    "top-1 is agreement with the teacher; Brier-1 of a diffusion row is an unbiased estimate. "
    "Entropy and gen-PPL are read together: repetitive text scores low on both. ~: more chains "
    "would still change the NLL by 0.02 or more. All other scores are in record.json."
)


def _metric(score: Score) -> Metric:
    return METRICS.named(score.metric, score.unit)


def _compared(score: Score) -> bool:
    """Whether a score can be compared with other records', as differences of rows cannot."""
    metric = _metric(score)
    return Shown.CARD in metric.shown and not metric.signed


def _kind(score: Score) -> str:
    return f"ensemble({score.chains})" if score.kind == "ensemble" else score.kind


def _name(score: Score) -> str:
    first = "first-token " if score.metric.startswith(SEQUENCE_PREFIX) else ""
    return f"{first}{_metric(score).title} ({_kind(score)}, S={score.steps}, K={score.chains})"


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


def _lines(record: Record, scores: Iterable[Score]) -> list[dict[str, str]]:
    own = record.data["interface"]
    order = ["teacher", own["name"], *own["controls"]]
    rows: dict[tuple[int, str, bool, int, int, str], list[Score]] = {}
    for score in scores:
        place = order.index(score.subject) if score.subject in order else len(order)
        trial = score.signal not in _OWN
        key = (place, score.subject, trial, score.steps, score.chains, score.signal)
        rows.setdefault(key, []).append(score)
    return [_line(rows[key]) for key in sorted(rows)]


def _line(scores: list[Score]) -> dict[str, str]:
    first = scores[0]
    trial = "" if first.signal in _OWN else f", signal {first.signal}"
    unconverged = any(score.details.get("converged") is False for score in scores)
    likelihoods = [score for score in scores if score.kind not in ("estimate", "bound")]
    line = {
        "row": first.subject + trial,
        "S": str(first.steps),
        "K": str(first.chains),
        "NFE": ", ".join(dict.fromkeys(str(score.nfe) for score in scores)),
        "kind": _kind((likelihoods or scores)[0]) + (" ~" if unconverged else ""),
        "n": ", ".join(dict.fromkeys(f"{score.n:,}" for score in scores)),
    }
    found = {_metric(score).key: score for score in scores}
    start = "first-token " if first.metric.startswith(SEQUENCE_PREFIX) else ""
    for metric in METRICS.shown_in(Shown.CARD):
        line[f"{start}{metric.title}"] = _cell(found.get(metric.key), metric)
    return line


def _cell(score: Score | None, metric: Metric) -> str:
    if score is None:
        return ""
    form = f"{'+' if metric.signed else ''}.{metric.digits}f"
    return f"{score.value:{form}}" + _interval(score, form)


def _interval(score: Score, form: str) -> str:
    if score.lo is None or score.hi is None:
        return ""
    return f" [{score.lo:{form}}, {score.hi:{form}}]"


def _gain(score: Score) -> str:
    where = f"{escaped(score.subject)}, S={score.steps}, K={score.chains}, on {escaped(score.task)}"
    control = escaped(score.details["control"])
    number = escaped(f"{score.value:+.4f}{_interval(score, '+.4f')} {score.unit}")
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
