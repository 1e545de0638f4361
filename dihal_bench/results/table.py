"""The one model of a table: built where the numbers are, written by one writer per format."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dihal_bench.results.metric import Metric
    from dihal_bench.results.record import Score

NONE = "–"  # where there is no value
UNDEFINED = "undefined"  # where a statistic has none
TIED, UNCONVERGED, FEWER = "tied", "not converged", "fewer tokens"
OTHER_TASK, FOOLED, PUBLISHED = "other task", "fooled", "published"
FLAGS = {  # of cells, each with the line of a legend that begins with its mark
    TIED: f"= {TIED}: another interface is neither surely better nor surely worse.",
    UNCONVERGED: f"~ {UNCONVERGED}: doubling K still moves NLL by 0.02 or more.",
    FEWER: f"‡ {FEWER}: the control that the gain is over was trained on fewer tokens.",
    OTHER_TASK: f"† {OTHER_TASK}: the row it is held against replaces another number of blocks.",
    FOOLED: f"* {FOOLED}: the metric ranks samplers that know no language model above the "
    "teacher's own samples, so that it does not rank these rows either.",
    PUBLISHED: f"* {PUBLISHED}: settings that are in the literature.",
}
_FORMS = {
    "integer": ",.0f",
    "tokens": ",.0f",
    "flops": ".2e",
    "significant": ".{}g",
    "share": ".{}%",
}
_ENDS = ("", "_lo", "_hi", "_among", "_flags")  # of the names of what a cell has in a flat row


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class TableCell:
    """A value with what belongs to it; a plain value needs none of this.

    Attributes:
        value: a number, or a text.
        lo: lower end of its 95 % interval; None: there is none.
        hi: upper end of it.
        spread: in place of an interval the standard deviation, or half the width of an interval.
        flags: of ``FLAGS``: what a reader has to be told of it.
        among: what a rank is among.
    """

    value: float | str
    lo: float | None = None
    hi: float | None = None
    spread: float | None = None
    flags: tuple[str, ...] = ()
    among: str = ""

    @classmethod
    def of(cls, own: Estimate | Score | None, *flags: str) -> TableCell | None:
        """Return the cell of an estimate or a score, None where there is none."""
        given = tuple(flag for flag in flags if flag)
        return None if own is None else cls(own.value, own.lo, own.hi, flags=given)

    @property
    def named(self) -> dict[str, Any]:
        """The plain values of what there is, by the ends of their names in a flat row."""
        own = (self.value, self.lo, self.hi, self.among, "; ".join(self.flags))
        return {
            end: value for end, value in zip(_ENDS, own, strict=True) if value not in (None, "")
        }

    def text(self, shown: Callable[[float], str]) -> str:
        """Return a number with the ends of its interval in brackets or its spread, if it has any.

        Args:
            shown: writes a number, with as many digits and the sign that it is to have.
        """
        if isinstance(self.value, str):
            return self.value
        if self.lo is not None and self.hi is not None:
            return f"{shown(self.value)} [{shown(self.lo)}, {shown(self.hi)}]"
        spread = "" if self.spread is None else f" ± {shown(self.spread)}"
        return shown(self.value) + spread

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the interval's ends and what a rank is among only if they exist."""
        ends = {} if self.lo is None or self.hi is None else {"lo": self.lo, "hi": self.hi}
        more = {"among": self.among} if self.among else {"flags": list(self.flags)}
        return {"value": self.value, **ends, **more}


Value = TableCell | float | str | None
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: of its cells.
        title: as it is shown.
        help: what it is, in a sentence.
        better: "higher", "lower", or None where neither is.
        type: "estimate" (with an interval), "number", "integer", "tokens", "flops",
            "share", "significant", "text" or "markup" (text that is Markdown already).
        digits: after the point; of "significant" ones in all.
        likelihood: whether kinds must not be ranked against each other by it.
        brief: whether it stands where there is little room; CSV files have all columns.
        signed: whether its numbers are differences, which have a plus too.
    """

    key: str
    title: str
    help: str = ""
    _: KW_ONLY
    better: str | None = None
    type: str = "text"
    digits: int = 0
    likelihood: bool = False
    brief: bool = True
    signed: bool = False

    @classmethod
    def of(cls, metric: Metric, **changes: Any) -> Column:
        """Return the column of a metric."""
        own: dict[str, Any] = {"key": metric.name, "type": "estimate"}
        same = ("title", "help", "better", "digits", "likelihood", "brief", "signed")
        return cls(**own | {name: getattr(metric, name) for name in same} | changes)

    def to_dict(self) -> dict[str, Any]:
        """Return what the pages know of a column."""
        return {name: value for name, value in vars(self).items() if name != "signed"}


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of a table.

    Attributes:
        cells: by key of the column; some have no column.
        runs: ids of the records behind it.
        ties: rows that it has its rank with.
        owners: interfaces whose row it is.
    """

    cells: Mapping[str, Value]
    runs: Sequence[str] = ()
    ties: Sequence[str] = ()
    owners: Sequence[str] = ()

    def value(self, key: str) -> Any:
        """Return the plain value of a cell, None where there is none."""
        cell = self.cells.get(key)
        return cell.value if isinstance(cell, TableCell) else cell

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        cells = {k: c.to_dict() if isinstance(c, TableCell) else c for k, c in self.cells.items()}
        lists = {"runs": list(self.runs), "ties": list(self.ties), "owners": list(self.owners)}
        return {"cells": cells, **lists}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of any verb, of the leaderboard or of a model card.

    Attributes:
        columns: in order.
        rows: in order.
        title: what stands above it.
        legend: sentences below it.
        id: name of its files.
        kind: "likelihood" or "task", of the leaderboard's.
        facts: what all rows have in common.
        reason: why it is not comparable with others; empty if it is.
    """

    columns: Sequence[Column]
    rows: Sequence[TableRow]
    title: str = ""
    legend: Sequence[str] = ()
    id: str = ""
    kind: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def of(
        cls, rows: Iterable[_Row], *columns: tuple[Column, Callable[[_Row], Value]], title: str = ""
    ) -> Table:
        """Return a table of things: each column with what its cell is of one of them."""
        cells = [{column.key: value(row) for column, value in columns} for row in rows]
        own = [column for column, _ in columns]
        return cls(columns=own, rows=[TableRow(cells=own) for own in cells], title=title)

    @property
    def section(self) -> str:
        """The part of the leaderboard that it belongs to."""
        return "unmatched" if self.reason else "matched"

    @property
    def used(self) -> list[Column]:
        """The columns that at least one row has something in."""
        filled = {key for row in self.rows for key, cell in row.cells.items() if cell is not None}
        return [column for column in self.columns if column.key in filled]

    def only(self, *keys: str) -> Table:
        """Return a table of some of its columns, in this order."""
        columns = {column.key: column for column in self.columns}
        return replace(self, columns=[columns[key] for key in keys if key in columns])

    def flat(self) -> list[dict[str, Any]]:
        """Return rows as plain values by column; ends of intervals and flags have their own."""
        found = [
            {f"{c.key}{end}": v for c in self.columns for end, v in _named(row.cells.get(c.key))}
            for row in self.rows
        ]
        names = [f"{c.key}{end}" for c in self.columns for end in _ENDS]
        there = [name for name in names if any(name in row for row in found)]
        return [{name: row.get(name) for name in there} for row in found]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as the leaderboard's pages read them."""
        return {
            "id": self.id,
            "title": self.title,
            "section": self.section,
            "kind": self.kind,
            "facts": dict(self.facts),
            "columns": [column.to_dict() for column in self.columns],
            "rows": [row.to_dict() for row in self.rows],
            "legend": list(self.legend),
            "reason": self.reason,
        }


def _named(cell: Value) -> Iterable[tuple[str, Any]]:
    return cell.named.items() if isinstance(cell, TableCell) else [("", cell)]


def cell_text(cell: Value, column: Column, plain: Callable[[str], str] = str) -> str:
    """Return a cell as text, with the marks of its flags.

    Args:
        cell: of the column.
        column: says how numbers are shown.
        plain: writes strings.
    """
    if cell is None:
        return NONE
    own = cell if isinstance(cell, TableCell) else TableCell(cell)
    shown = own.text(lambda value: number(value, column))
    among = f" ({plain(own.among)})" if own.among else ""
    marks = "".join(f" {FLAGS[flag].split()[0]}" for flag in own.flags)
    words = isinstance(own.value, str) and column.type != "markup"
    return (plain(shown) if words else shown) + among + marks


def number(value: float, column: Column) -> str:
    """Return a number as a column shows it."""
    if column.type in _FORMS:
        return format(value, _FORMS[column.type].format(column.digits))
    sign = "+" if column.signed else ""
    # Small estimates stand beside others of their kind.
    small = column.type != "estimate" and 0 < abs(value) < 1e-4
    if small or not abs(value) < 1e6:
        return f"{value:{sign}.2g}" if math.isfinite(value) else str(value)
    shown = f"{value:{sign}.{column.digits}f}"
    return shown if sign or float(shown) else shown.removeprefix("-")


def words(key: str, title: str | None = None, *, markup: bool = False) -> Column:
    """Return a column of text, or of Markdown."""
    return Column(key, key if title is None else title, type="markup" if markup else "text")


def numbers(key: str, title: str | None = None, **changes: Any) -> Column:
    """Return a column of numbers that stand beside others of their kind."""
    return Column(key, key if title is None else title, **{"type": "estimate"} | changes)


def differences(key: str, title: str | None = None, digits: int = 2) -> Column:
    """Return a column of numbers with their signs."""
    return numbers(key, title, digits=digits, signed=True)
