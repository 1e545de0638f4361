"""Tables of what runs were scored on besides their own text: generation, rolling tasks, choices."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
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
    from collections.abc import Collection, Mapping

    from dihal_bench.leaderboard.groups import Group
    from dihal_bench.results.record import Score
    from dihal_bench.results.table import Column, Table, Value

_LEGEND = (
    "Intervals are 95 %: of one training over what it was scored on; of several that of their "
    "mean, in which what trainings differ by is added to the mean of their own.",
    FLAGS[FOOLED],
)
_TEACHER = "teacher"
_REAL, _NAIVE = "reference", "no model"  # roles of rows without one
_Key = tuple[str, str, int, int, str]  # label, subject, S, K, signal


@dataclass(frozen=True)
class _Told:
    """A score with the seed and run that it is from."""

    seed: int
    run: str
    score: Score


def task_tables(group: Group) -> list[Table]:
    """Return a table for every task that at least one run of a group was scored on.

    Scores of one name that were made otherwise (other settings, judge or scorer) are another task.
    """
    told: dict[tuple[str, str], dict[_Key, list[_Told]]] = defaultdict(lambda: defaultdict(list))
    audits: dict[tuple[str, str], Mapping[str, Any]] = {}
    for label, record in group.all:
        tasks, seed = record.data.get("tasks", {}), record.data["config"]["seed"]
        for score in record.scores:
            if score.task in tasks:
                made = f"{tasks[score.task]['key']}, scorer {score.version}, {score.dtype}"
                own = _Told(seed, record.data["id"], score)
                told[score.task, made][_key(label, score)].append(own)
                audit = record.data.get("audits", {}).get(score.task)
                if audit:
                    audits.setdefault((score.task, made), audit)  # the same of every training
    names = Counter(task for task, _ in told)
    tables = []
    for (task, made), rows in sorted(told.items()):
        name = f"{task} ({made})" if names[task] > 1 else task
        tables.append(_table(group, name, rows, audits.get((task, made), {})))
    return tables


def _key(label: str, score: Score) -> _Key:
    own = "" if score.subject == _TEACHER else label
    return own, score.subject, score.steps, score.chains, score.signal


def _table(
    group: Group, task: str, told: Mapping[_Key, list[_Told]], audit: Mapping[str, Any]
) -> Table:
    metrics: dict[str, Column] = {}
    for own in told.values():
        for one in own:
            metrics.setdefault(one.score.metric, of_task(one.score.metric, one.score.unit))
    fooled = _fooled(told) | _under(audit)
    rows = [_row(group, key, told[key], fooled) for key in sorted(told, key=_order)]
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
                own["value"], own["lo"], own["hi"], flags=_flags(metric, fooled)
            )
            for metric, own in measures.items()
            if metric in metrics
        }
        if cells:
            n = next(iter(measures.values()))["n"]
            rows.append(
                TableRow(cells=cells | {"row": name, "interface": name, "role": role, "n": n})
            )
    return rows


def _flags(metric: str, fooled: Collection[str]) -> tuple[str, ...]:
    return (FOOLED,) if metric in fooled else ()


def _fooled(told: Mapping[_Key, list[_Told]]) -> dict[str, list[str]]:
    """Return every metric that an audit found to be fooled, with what fools it."""
    found: dict[str, set[str]] = defaultdict(set)
    for own in told.values():
        for one in own:
            found[one.score.metric] |= set(one.score.details.get("fooled_by", ()))
    return {metric: sorted(names) for metric, names in sorted(found.items()) if names}


def _under(audit: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what is under the teacher's frontier, which older records do not say."""
    names = sorted(under_teacher(audit))
    return {GEN_PPL_AT_ENTROPY.key: names} if names else {}


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


def _row(group: Group, key: _Key, told: list[_Told], fooled: Collection[str]) -> TableRow:
    label, subject, steps, chains, _ = key
    if subject == _TEACHER:  # the same in all records, which were told apart by it
        told = [one for one in told if one.run == told[0].run]
    first = told[0].score
    leads = subject == label.partition(" ")[0]
    by_metric: dict[str, list[_Told]] = defaultdict(list)
    for one in told:
        by_metric[one.score.metric].append(one)
    seeds = {one.run: one.seed for one in told}
    runs = sorted(seeds, key=lambda run: (seeds[run], run))
    records = [r for _, r in group.all if r.data["id"] in runs]
    beside = "" if leads or not label else f" (beside {label})"
    return TableRow(
        cells={
            **{
                f"metric:{metric}": _mean([one.score for one in own], *_flags(metric, fooled))
                for metric, own in by_metric.items()
            },
            "row": label if leads else f"{subject}{beside}",
            "interface": label or _TEACHER,
            "role": _TEACHER if subject == _TEACHER else "interface" if leads else "control",
            "kind": f"{first.kind}({chains})" if first.kind == "ensemble" else first.kind,
            "steps": steps,
            "chains": chains,
            "nfe": first.nfe,
            "replaced": None if subject == _TEACHER else records[0].data["interface"]["replaced"],
            "seeds": 1 if subject == _TEACHER else len({one.seed for one in told}),
            "n": first.n,
            "dtype": first.dtype,
            "versions": versions(records),
        },
        runs=runs,
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
