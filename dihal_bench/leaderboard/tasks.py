"""Tables of what runs were scored on besides their own text: generation, rolling tasks, choices."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.core.files import safe
from dihal_bench.evaluation.intervals import over_trainings
from dihal_bench.evaluation.samples.frontier import Place, under
from dihal_bench.leaderboard.tables import facts, group_table, versions
from dihal_bench.results.metrics import ENTROPY, GEN_PPL, GEN_PPL_AT_ENTROPY
from dihal_bench.results.table import FLAGS, FOOLED, TableCell, TableRow
from dihal_bench.studies.comparison.columns import TASK_COSTS, TASK_ROW, of_task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dihal_bench.leaderboard.groups import Group
    from dihal_bench.results.record import Record, Score
    from dihal_bench.results.table import Column, Table, Value

    _Told = Sequence[tuple[Record, Score]]

_LEGEND = (
    "Intervals are 95 %: of one training over what it was scored on; of several that of their "
    "mean, in which what trainings differ by is added to the mean of their own.",
    FLAGS[FOOLED],
)
_TEACHER = "teacher"
_REAL, _NAIVE = "reference", "no model"  # roles of rows without one
_Key = tuple[str, str, int, int, str]  # label, subject, S, K, signal


def task_tables(group: Group) -> list[Table]:
    """Return a table for every task that at least one run of a group was scored on.

    Scores of one name that were made otherwise (other settings, judge or scorer) are another task.
    """
    told: dict[tuple[str, str], dict[_Key, list[tuple[Record, Score]]]] = {}
    audits: dict[tuple[str, str], Mapping[str, Any]] = {}
    for label, record in group.all:
        tasks = record.data.get("tasks", {})
        for score in (own for own in record.scores if own.task in tasks):
            name = score.task
            made = name, f"{tasks[name]['key']}, scorer {score.version}, {score.dtype}"
            rows = told.setdefault(made, defaultdict(list))
            rows[_key(label, score)].append((record, score))
            audits[made] = audits.get(made) or record.data.get("audits", {}).get(name) or {}
    names = Counter(task for task, _ in told)
    return [
        _table(group, f"{task} ({made})" if names[task] > 1 else task, rows, audits[task, made])
        for (task, made), rows in sorted(told.items())
    ]


def _key(label: str, score: Score) -> _Key:
    own = "" if score.subject == _TEACHER else label
    return own, score.subject, score.steps, score.chains, score.signal


def _table(group: Group, task: str, told: Mapping[_Key, _Told], audit: Mapping[str, Any]) -> Table:
    scores = [score for own in told.values() for _, score in own]
    metrics: dict[str, Column] = {}
    for score in scores:
        metrics.setdefault(score.metric, of_task(score.metric, score.unit))
    fooled = _fooled(scores, audit)
    rows = [_row(key, told[key], fooled) for key in sorted(told, key=_order)]
    after = sum(row.value("role") == _TEACHER for row in rows)
    rows[after:after] = _rows_of({"real text": audit.get("data", {})}, metrics, fooled, _REAL)
    naive = {own["name"]: own["measures"] for own in audit.get("impostors", ()) if own["published"]}
    rows += _rows_of(naive, metrics, fooled, _NAIVE)
    told_by = sorted(metrics, key=lambda name: (name in fooled, metrics[name].better is None))
    return group_table(
        group,
        id=safe(f"{group.name}-task-{task}"),
        title=f"{task}: {group.title}",
        kind="task",
        facts={**facts(group), "task": task},
        columns=(*TASK_ROW, *(metrics[name] for name in told_by), *TASK_COSTS),
        rows=rows,
        legend=(*_LEGEND, *(f"{m} is won by {', '.join(own)}." for m, own in fooled.items())),
    )


def _rows_of(
    measured: Mapping[str, Mapping[str, Any]],
    metrics: Collection[str],
    fooled: Collection[str],
    role: str,
) -> list[TableRow]:
    """Return rows of what no training is behind: name -> metric -> value and interval."""
    rows = []
    for name, measures in measured.items():
        cells: dict[str, Value] = {
            f"metric:{metric}": TableCell(
                own["value"], own["lo"], own["hi"], flags=(FOOLED,) * (metric in fooled)
            )
            for metric, own in measures.items()
            if metric in metrics
        }
        if cells:
            n = next(iter(measures.values()))["n"]
            about = {"row": name, "interface": name, "role": role, "n": n}
            rows.append(TableRow(cells=cells | about))
    return rows


def _fooled(scores: Iterable[Score], audit: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return every metric that an audit found to be fooled, with what fools it."""
    found: dict[str, set[str]] = defaultdict(set)
    for score in scores:
        found[score.metric] |= set(score.details.get("fooled_by", ()))
    told = {metric: sorted(names) for metric, names in sorted(found.items()) if names}
    under = sorted(under_teacher(audit))  # which older records do not say
    return told | ({GEN_PPL_AT_ENTROPY.key: under} if under else {})


def under_teacher(audit: Mapping[str, Any]) -> dict[str, float]:
    """Return which rows without a model have a lower perplexity than the teacher at their entropy.

    Args:
        audit: of a record.

    Returns:
        name -> its share of the teacher's perplexity there.
    """
    points = [
        (point["temperature"], point[ENTROPY.key], point[GEN_PPL.key])
        for point in audit.get("frontier") or ()
        if point["row"] == _TEACHER and point[GEN_PPL.key] > 0
    ]
    places = {own["name"]: place_of(own["measures"]) for own in audit.get("impostors") or ()}
    known = {name: place for name, place in places.items() if place}
    return under([place for _, *place in sorted(points)], known) if points else {}


def place_of(measures: Mapping[str, Any]) -> Place | None:
    """Return the entropy and generative perplexity of what was measured, if both were."""
    if not {ENTROPY.key, GEN_PPL.key} <= measures.keys():
        return None
    return measures[ENTROPY.key]["value"], measures[GEN_PPL.key]["value"]


def _order(key: _Key) -> tuple[bool, str, bool, _Key]:
    """The teacher, then interfaces, each before its controls."""
    label, subject, *_ = key
    return subject != _TEACHER, label, subject != label.partition(" ")[0], key


def _row(key: _Key, told: _Told, fooled: Collection[str]) -> TableRow:
    label, subject, steps, chains, _ = key
    teacher, leads = subject == _TEACHER, subject == label.partition(" ")[0]
    if teacher:  # the same in all records, which were told apart by it
        told = [(record, score) for record, score in told if record is told[0][0]]
    by_metric: dict[str, list[Score]] = defaultdict(list)
    for _, score in told:
        by_metric[score.metric].append(score)
    seeds = {record.data["id"]: record.data["config"]["seed"] for record, _ in told}
    record, first = told[0]
    beside = "" if leads or teacher else f" (beside {label})"
    return TableRow(
        cells={
            **{
                f"metric:{metric}": _mean(own, *(FOOLED,) * (metric in fooled))
                for metric, own in by_metric.items()
            },
            "row": label if leads else f"{subject}{beside}",
            "interface": label or _TEACHER,
            "role": _TEACHER if teacher else "interface" if leads else "control",
            "kind": f"{first.kind}({chains})" if first.kind == "ensemble" else first.kind,
            "steps": steps,
            "chains": chains,
            "nfe": first.nfe,
            "replaced": None if teacher else record.data["interface"]["replaced"],
            "seeds": len(set(seeds.values())),
            "n": first.n,
            "dtype": first.dtype,
            "versions": versions(record for record, _ in told),
        },
        runs=sorted(seeds, key=lambda run: (seeds[run], run)),
        owners=[label] if label else [],
    )


def _mean(scores: list[Score], *flags: str) -> TableCell:
    """Return the mean over trainings; the same number from each (the teacher's) is one number."""
    values = np.array([score.value for score in scores])
    mean = float(values.mean())
    known = [(s.lo, s.hi) for s in scores if s.lo is not None and s.hi is not None]
    if len(known) < len(scores):
        return TableCell(mean, flags=flags)
    if np.ptp(values) == 0:
        return TableCell(mean, *known[0], flags=flags)
    ends = np.array(known)
    lower, upper = over_trainings(values) or (mean, mean)
    below = float(np.hypot(mean - lower, np.mean(values - ends[:, 0])))
    above = float(np.hypot(upper - mean, np.mean(ends[:, 1] - values)))
    return TableCell(mean, mean - below, mean + above, flags=flags)
