"""The scores of a run as a model card shows them: results for the hub, tables, gains in words."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from dihal_bench.core.files import BUNDLED
from dihal_bench.core.markdown import escaped, one_line
from dihal_bench.models.named import NAMED
from dihal_bench.reporting.run_table import (
    CHAINS,
    KIND,
    OWN,
    ROW,
    STEPS,
    kind_of,
    metric_columns,
    rows_of,
)
from dihal_bench.reporting.writers import text
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
    from collections.abc import Iterator, Mapping

    from huggingface_hub import EvalResult

    from dihal_bench.results.record import Record, Score

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
OWN_NAMES = (BUNDLED, *NAMED)  # of backbones that every installation can have
_TELLING = ("config", "interface", "backbone", "corpus", "environment", "scores", "audits")
_LONGEST = 1000  # characters of a path; what is longer is text


def hub_model(data: Mapping[str, Any]) -> str | None:
    """Return the hub id that a record's backbone is spelled like; None: a folder, file or own name.

    Of a file on the hub that is its repository.
    """
    name = data["backbone"]["name"].partition(":")[0]
    return name if name not in OWN_NAMES and _HUB_ID.fullmatch(name) else None


def hub_dataset(data: Mapping[str, Any]) -> str | None:
    """Return the hub id of a record's corpus; None: files or bundled."""
    repository = data["corpus"].get("notes", {}).get("repository", "")
    return repository if _HUB_ID.fullmatch(repository) else None


def paths(data: Mapping[str, Any]) -> list[str]:
    """Return the absolute paths that a record holds, longest first."""
    leaves = (leaf for field in _TELLING for leaf in _strings(data.get(field)))
    words = [leaf for leaf in leaves if len(leaf) <= _LONGEST] + _words(data["command"])
    task = f"{data['corpus']['name']}:validation"  # the corpus with the name of a set: no file
    found = {word for word in words if _absolute(word) and word != task}
    return sorted(found, key=lambda path: (-len(path), path))


def without_paths(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's fields with every path in them cut to its last part."""
    text = json.dumps(dict(data))
    for path in paths(data):
        cut = f"path/to/{path.rstrip('/').rpartition('/')[2]}"
        text = text.replace(json.dumps(path)[1:-1], json.dumps(cut)[1:-1])
    fields: dict[str, Any] = json.loads(text)
    return fields


def _absolute(word: str) -> bool:
    return len(word) > 1 and word[0] in "/~" and "\n" not in word


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "excerpts":  # generated text
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _words(command: str) -> list[str]:
    """Return the words of a command line, and what is assigned in them."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that is not closed
        words = command.split()
    return words + [value for word in words if (value := word.partition("=")[2])]


_NFE, _N = numbers("nfe", "NFE"), numbers("n", type="tokens")


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
        if score.subject == name and score.signal in OWN and _compared(score)
    ]


def tables(record: Record) -> list[str]:
    """Return a table per task: a line per row, steps, chains and signal, intervals in brackets."""
    found, interface = [_LEGEND], record.data["interface"]
    order = ["teacher", interface["name"], *interface["controls"]]
    shown = {metric.key for metric in METRICS.shown_in(Shown.CARD)}
    for task in dict.fromkeys(score.task for score in record.scores):
        scores = [s for s in record.scores if s.task == task and base_name(s.metric) in shown]
        if scores:
            columns = [ROW, STEPS, CHAINS, _NFE, KIND, _N, *metric_columns(Shown.CARD, scores)]
            rows = rows_of(sorted(scores, key=lambda score: score.signal), order)
            table = Table(columns=columns, rows=[TableRow(cells=cells) for cells in rows])
            found += [f"On {escaped(task)}:", text(table, "github")]
    return found


def gains(record: Record) -> str:
    """Say what noise bought, or cost, beside the best control without diffusion."""
    own = [_gain(s) for s in record.scores if base_name(s.metric) == DIFFUSION_GAIN.key]
    if own:
        intro = "NLL of the best control at no more network evaluations, minus the row's:"
        return "\n".join([intro, "", *own])
    return (
        "There is no likelihood beside that of a control without diffusion in this record, so "
        "nothing is known of it."
    )


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


def _name(score: Score) -> str:
    first = "first-token " if score.metric.startswith(SEQUENCE_PREFIX) else ""
    title = METRICS.named(score.metric).title
    return f"{first}{title} ({kind_of(score)}, S={score.steps}, K={score.chains})"


def _settings(score: Score) -> dict[str, Any]:
    judge = {"judge": score.details["judge"]} if "judge" in score.details else {}
    interval = {} if None in (score.lo, score.hi) else {"lo": score.lo, "hi": score.hi}
    numbered = ("kind", "steps", "chains", "nfe", "n")
    return {
        **{name: getattr(score, name) for name in numbered},
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


def _gain(score: Score) -> str:
    where = f"{escaped(score.subject)}, S={score.steps}, K={score.chains}, on {escaped(score.task)}"
    shown = cell_text(TableCell.of(score), Column.of(DIFFUSION_GAIN))
    control, number = escaped(score.details["control"]), escaped(f"{shown} {score.unit}")
    return f"- {where}: {_verdict(score)} {control}: {number}."


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
