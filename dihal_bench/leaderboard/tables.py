"""Tables of the leaderboard as plain values: a pure function of the records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import counted, one_line
from dihal_bench.leaderboard.columns import likelihood_columns
from dihal_bench.results.metrics import BLOCK_BOUND, BRIER1, DIFFUSION_GAIN, NLL
from dihal_bench.studies.comparison.paired import Paired
from dihal_bench.studies.comparison.pool import SeedPool
from dihal_bench.studies.comparison.table import Line, lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dihal_bench.evaluation.intervals import Estimate
    from dihal_bench.leaderboard.groups import Group
    from dihal_bench.results.record import Record

_MOST_RESAMPLES = 2000
_PLAIN = (
    *("replaced", "retained", "flop_ratio", "steps", "chains", "nfe", "seeds", "n"),
    *("diffusion_tokens", "recovery_tokens", "trunk", "recovery", "flops", "seconds", "oracle"),
    *("sigma_half",),
)
TIED, UNCONVERGED, FEWER = "tied", "not converged", "fewer tokens"
LEGEND = (
    "Intervals are 95 %, over documents, and over trainings where there are several; of fewer than "
    "three seeds no row has a rank.",
    "Rank is by Brier-1, paired: 1 + how many are surely better, among the interfaces of equal S "
    "that replace as many blocks, which stands beside it; one ranking's rows stand together.",
    "NLL of an ensemble is a proper likelihood of its own generator, at NFE = S x K evaluations; "
    "exact and ensemble rows are of different kinds, and so are other numbers of evaluations.",
    f"= {TIED}: another interface is neither surely better nor surely worse.",
    f"~ {UNCONVERGED}: doubling K still moves NLL by 0.02 or more.",
    f"‡ {FEWER}: the control that the gain is over was trained on fewer tokens.",
)


def likelihood_table(group: Group) -> dict[str, Any]:
    """Return the table of a group's scores on the runs' own text."""
    pool = SeedPool.gather(group.all)
    wanted = max(r.data["config"]["score"]["resamples"] for _, r in group.all)
    paired = Paired(pool, resamples=min(wanted, _MOST_RESAMPLES))
    owners = {(k.interface, pool.name(k), k.row.steps): pool.owners(k) for k in pool.rows}
    rows = [
        _row(line, group, owners.get((line.interface, line.row, line.steps), []))
        for line in _ordered(lines(paired, group.name, reference=None))
    ]
    return {
        "id": group.name,
        "title": group.title,
        "section": section(group),
        "kind": "likelihood",
        "facts": facts(group),
        "columns": present(likelihood_columns(), rows),
        "rows": rows,
        "legend": list(LEGEND),
        "reason": group.setting.reason,
    }


def _ordered(found: Sequence[Line]) -> list[Line]:
    """Return the teacher, then ranking by ranking the interfaces, best first, then all the rest."""
    standing = {
        (line.interface, line.steps): (line.rank or len(found), -line.estimates[BRIER1.name].value)
        for line in found
        if line.role == "interface" and BRIER1.name in line.estimates
    }

    def place(line: Line) -> tuple[Any, ...]:
        if line.role != "interface":
            return (0 if line.role == "teacher" else 2,)
        own = standing.get((line.interface, line.steps), (len(found), 0.0))
        return 1, line.replaced, line.steps, *own, line.interface, -line.chains

    return sorted(found, key=place)


def section(group: Group) -> str:
    """Return the part of the leaderboard that a group belongs to."""
    return "unmatched" if group.setting.reason else "matched"


def facts(group: Group) -> dict[str, Any]:
    """Return what all rows of a group have in common."""
    own = group.setting
    _, first = group.all[0]
    budgets = sorted({r.data["config"]["budget"]["name"] for _, r in group.all})
    return {
        "backbone": own.backbone,
        "backbone_fingerprint": own.backbone_fingerprint,
        "corpus": own.corpus,
        "corpus_fingerprint": own.corpus_fingerprint,
        "task": own.task,
        "regime": own.regime,
        "block": own.block,
        "budget": ", ".join(budgets),
        "diffusion_tokens": own.diffusion_tokens,
        "recovery_tokens": own.recovery_tokens,
        "matched": own.matched,
        "dtype": own.dtype,
        "tokens": int(sum(first.data["sums"]["tokens"])),
        "documents": first.data["sums"]["documents"],
        **_sizes(first.data),
    }


def _sizes(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return of what kind and size the backbone and its text are, as far as a record says so."""
    backbone, corpus = data["backbone"], data["corpus"]
    architecture = backbone.get("architecture")
    counts = {
        "blocks": backbone["blocks"],
        "parameters": backbone.get("parameters"),
        "vocabulary": backbone.get("vocab_size"),
        "training_tokens": corpus.get("train_tokens"),
    }
    return {
        **({"architecture": one_line(architecture)} if isinstance(architecture, str) else {}),
        **{name: count for name, count in counts.items() if type(count) is int},
    }


def versions(records: Iterable[Record]) -> str:
    """Return what code made records."""
    made = [r.data["environment"] for r in records]
    return one_line(
        ", ".join(sorted({f"{e['versions']['dihal-bench']} {e['git'] or ''}" for e in made}))
    )


def cell(estimate: Estimate, *flags: str) -> dict[str, Any]:
    """Return an estimate as the value of a cell."""
    return {
        "value": estimate.value,
        "lo": estimate.lo,
        "hi": estimate.hi,
        "flags": [flag for flag in flags if flag],
    }


def _rank(line: Line) -> dict[str, Any] | None:
    """Return a rank with what it is among: those that it was held against."""
    if line.rank is None:
        return None
    blocks = counted(line.replaced or 0, "block")
    return {"value": line.rank, "among": f"of {line.ranked}: S={line.steps}, {blocks}"}


def _row(line: Line, group: Group, owners: list[str]) -> dict[str, Any]:
    records = group.records[line.interface]
    marks = {
        BRIER1.name: TIED if line.ties else "",
        NLL.name: UNCONVERGED if line.converged is False else "",
        DIFFUSION_GAIN.name: FEWER if line.gain_fewer else "",
    }
    cells: dict[str, Any] = {name: getattr(line, name) for name in _PLAIN}
    for name, estimate in line.estimates.items():
        cells[name] = cell(estimate, marks.get(name, ""))
    exact = line.kind == "exact"
    return {
        "cells": {
            **cells,
            "row": line.row,
            "interface": line.interface,
            "role": line.role,
            "rank": _rank(line),
            "gain_over": line.gain_over or None,
            "kind": "exact" if exact else f"ensemble({line.chains})",
            BLOCK_BOUND.name: None if line.bound is None else {"value": line.bound, "flags": []},
            "dtype": group.setting.dtype,
            "versions": versions(records),
        },
        "runs": [record.data["id"] for record in records],
        "ties": list(line.ties),
        "owners": owners,
    }


def present(columns: Iterable[Any], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns that at least one row has something in."""
    return [
        column.to_dict()
        for column in columns
        if any(row["cells"].get(column.key) is not None for row in rows)
    ]
