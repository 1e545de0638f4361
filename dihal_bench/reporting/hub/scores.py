"""The scores of a run as a model card shows them: results for the hub, tables, gains in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import escaped, one_line, table
from dihal_bench.reporting.hub.origin import hub_dataset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from huggingface_hub import EvalResult

    from dihal_bench.results.record import Record, Score

_OWN = ("sampled", "generated")  # signals that are the interface's own; others are trials
_FIRST = "first_token_"  # what the metrics of the sequence regime begin with
_GAIN = "diffusion_gain"
_COMPARED = {  # metric -> its name, and digits
    "nll": ("NLL", 4),
    "ppl": ("perplexity", 2),
    "bits_per_byte": ("bits per byte", 4),
    "brier1": ("Brier-1", 4),
    "kl": ("KL to the teacher", 4),
    "block_bound": ("block bound", 4),
    "gen_ppl": ("generative perplexity", 2),
    "entropy": ("entropy of samples", 3),
}
_BESIDE = {"top1": ("top-1", 4), _GAIN: ("diffusion gain", 4)}
_COLUMNS = _COMPARED | _BESIDE


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
        if score.subject == name and score.signal in _OWN and _base(score) in _COMPARED
    ]


def tables(record: Record) -> list[str]:
    """Return a table per task: a line per row, steps, chains and signal, intervals in brackets."""
    found = [_LEGEND]
    for task in dict.fromkeys(score.task for score in record.scores):
        scores = [s for s in record.scores if s.task == task and _base(s) in _COLUMNS]
        if scores:
            found += [f"On {escaped(task)}:", table(_lines(record, scores))]
    return found


def gains(record: Record) -> str:
    """Say what noise bought, or cost, beside the best control without diffusion."""
    found = [score for score in record.scores if _base(score) == _GAIN]
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
    "95 % intervals; n: what a score is over. Lower is better but for Brier-1 and top-1 (agreement "
    "with the teacher); Brier-1 of a diffusion row is an unbiased estimate. Entropy and generative "
    "perplexity are read together: whoever repeats himself has a low one of both. ~: more chains "
    "would still change the NLL by 0.02 or more. All other scores are in record.json."
)


def _base(score: Score) -> str:
    return score.metric.removeprefix(_FIRST)


def _kind(score: Score) -> str:
    return f"ensemble({score.chains})" if score.kind == "ensemble" else score.kind


def _name(score: Score) -> str:
    first = "first-token " if score.metric.startswith(_FIRST) else ""
    label = _COMPARED[_base(score)][0]
    return f"{first}{label} ({_kind(score)}, S={score.steps}, K={score.chains})"


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
    likelihoods = [score for score in scores if _base(score) not in ("brier1", "block_bound")]
    line = {
        "row": first.subject + trial,
        "S": str(first.steps),
        "K": str(first.chains),
        "NFE": ", ".join(dict.fromkeys(str(score.nfe) for score in scores)),
        "kind": _kind((likelihoods or scores)[0]) + (" ~" if unconverged else ""),
        "n": ", ".join(dict.fromkeys(f"{score.n:,}" for score in scores)),
    }
    found = {_base(score): score for score in scores}
    start = "first-token " if first.metric.startswith(_FIRST) else ""
    for metric, (label, digits) in _COLUMNS.items():
        line[f"{start}{label}"] = _cell(found[metric], digits) if metric in found else ""
    return line


def _cell(score: Score, digits: int) -> str:
    sign = "+" if _base(score) == _GAIN else ""
    return f"{score.value:{sign}.{digits}f}" + _interval(score, f"{sign}.{digits}f")


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
