"""Tables of the leaderboard: a pure function of the records."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import one_line
from dihal_bench.results.metrics import BRIER1
from dihal_bench.results.table import FEWER, FLAGS, TIED, UNCONVERGED, Table
from dihal_bench.studies.comparison.columns import likelihood_columns
from dihal_bench.studies.comparison.paired import Paired
from dihal_bench.studies.comparison.pool import SeedPool
from dihal_bench.studies.comparison.table import lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dihal_bench.leaderboard.groups import Group
    from dihal_bench.results.record import Record
    from dihal_bench.results.table import TableRow

_MOST_RESAMPLES = 2000
LEGEND = (
    "Intervals are 95 %, over documents, and over trainings where there are several; of fewer than "
    "three seeds no row has a rank.",
    "Rank is by Brier-1, paired: 1 + how many are surely better, among the interfaces of equal S "
    "that replace as many blocks, which stands beside it; one ranking's rows stand together.",
    "NLL of an ensemble is a proper likelihood of its own generator, at NFE = S x K evaluations; "
    "exact and ensemble rows are of different kinds, and so are other numbers of evaluations.",
    *(FLAGS[flag] for flag in (TIED, UNCONVERGED, FEWER)),
)


def likelihood_table(group: Group) -> Table:
    """Return the table of a group's scores on the runs' own text."""
    pool = SeedPool.gather(group.all)
    wanted = max(r.data["config"]["score"]["resamples"] for _, r in group.all)
    paired = Paired(pool, resamples=min(wanted, _MOST_RESAMPLES))
    found = _ordered(lines(paired, group.name, reference=None))
    return group_table(
        group,
        id=group.name,
        title=group.title,
        kind="likelihood",
        facts=facts(group),
        columns=likelihood_columns(),
        rows=[_row(row, group) for row in found],
        legend=LEGEND,
    )


def group_table(group: Group, **fields: Any) -> Table:
    """Return a table of a group, with the columns that at least one row has something in."""
    table = Table(reason=group.setting.reason, **fields)
    return replace(table, columns=table.used)


def _ordered(found: Sequence[TableRow]) -> list[TableRow]:
    """Return the teacher, then ranking by ranking the interfaces, best first, then all the rest."""
    standing = {
        (row.value("interface"), row.value("steps")): (
            row.value("rank") or len(found),
            -row.value(BRIER1.name),
        )
        for row in found
        if row.value("role") == "interface" and row.value(BRIER1.name) is not None
    }

    def place(row: TableRow) -> tuple[Any, ...]:
        role, label, steps = (row.value(key) for key in ("role", "interface", "steps"))
        if role != "interface":
            return (0 if role == "teacher" else 2,)
        own = standing.get((label, steps), (len(found), 0.0))
        return 1, row.value("replaced"), steps, *own, label, -row.value("chains")

    return sorted(found, key=place)


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
    backbone = data["backbone"]
    architecture = backbone.get("architecture")
    counts = {
        "blocks": backbone["blocks"],
        "parameters": backbone.get("parameters"),
        "vocabulary": backbone.get("vocab_size"),
        "training_tokens": data["corpus"].get("train_tokens"),
    }
    return {
        **({"architecture": one_line(architecture)} if isinstance(architecture, str) else {}),
        **{name: count for name, count in counts.items() if type(count) is int},
    }


def versions(records: Iterable[Record]) -> str:
    """Return what code made records."""
    made = [record.data["environment"] for record in records]
    every = {f"{own['versions']['dihal-bench']} {own['git'] or ''}" for own in made}
    return one_line(", ".join(sorted(every)))


def _row(row: TableRow, group: Group) -> TableRow:
    """Return a row as the leaderboard has it: without what is held against a reference."""
    records = group.records[row.value("interface")]
    kept = {"interface", "role", *(column.key for column in likelihood_columns())}
    cells = {key: cell for key, cell in row.cells.items() if key in kept}
    cells |= {"dtype": group.setting.dtype, "versions": versions(records)}
    return replace(row, cells=cells, runs=[record.data["id"] for record in records])
