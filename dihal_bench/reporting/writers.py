"""One writer per format of the one table: text for a terminal, Markdown, CSV, LaTeX."""

from __future__ import annotations

import math
import re
from csv import writer
from io import StringIO
from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import escaped, one_line
from dihal_bench.results.metrics import main_metrics
from dihal_bench.results.table import cell_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dihal_bench.results.table import Column, Table, TableRow

_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
_BRIEF = (  # what a paper has room for, beside the main metrics
    *("row", "rank", "gain_over", "replaced", "flop_ratio"),
    *("steps", "chains", "nfe", "kind", "seeds", "n"),
)
_SYMBOLS = {
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "‡": r"$\ddagger$", "σ": r"$\sigma$"},
    **{"·": r"$\cdot$", "‖": r"$\Vert$", "½": r"$\frac{1}{2}$", "…": r"\dots{}"},
    **{"−": "-", "–": "--"},
}
_LED = ("teacher", "reference", "interface", "")  # roles of rows that stand beside no other


def text(table: Table, form: str = "simple") -> str:
    """Return the rows: columns in which nothing stands are left out.

    Args:
        table: any.
        form: of tabulate: "simple" for a terminal; "github" for Markdown, in which what strangers
            wrote stays text.
    """
    columns = table.used
    shown = _tabulated(table, columns, escaped if form == "github" else str, form)
    return "\n".join(line.rstrip() for line in shown.splitlines())


def titled(table: Table, form: str = "simple", *said: str) -> str:
    """Return a table under its title and what is said of it."""
    return "\n\n".join([heading(table.title, form), *said, text(table, form)])


def heading(title: str, form: str) -> str:
    """Return a title as it stands in Markdown, or on a terminal."""
    return f"### {title}" if form == "github" else f"== {title} =="


def markdown(table: Table) -> str:
    """Return the columns that a reader compares, with facts, legend and what all columns mean."""
    columns = [column for column in table.columns if column.brief]
    facts = [f"{name.replace('_', ' ')}: {escaped(value)}" for name, value in _facts(table)]
    head = f"### {escaped(table.title)}"
    reason = [f"Not comparable with others: {table.reason}."] if table.reason else []
    parts = [head, *reason, "; ".join(facts), *_body(table, columns), *_explained(table)]
    return "\n\n".join(parts) + "\n"


def excerpt(table: Table) -> str:
    """Return a table's rows and legend alone, as Markdown."""
    return "\n\n".join([f"**{escaped(table.title)}**", *_body(table, table.columns)])


def csv(table: Table) -> str:
    """Return every column and fact; an estimate has three columns, and its flags one."""
    rows = table.flat()
    if any(row.runs for row in table.rows):
        about = {f"table:{name}": value for name, value in table.facts.items()}
        for flat, row in zip(rows, table.rows, strict=True):
            flat |= {"ties": "; ".join(row.ties), "runs": " ".join(row.runs), **about}
            flat["table:section"] = table.section
    written = StringIO()
    lines = [list(rows[0]) if rows else [], *(list(row.values()) for row in rows)]
    writer(written, lineterminator="\n").writerows([*map(_harmless, line)] for line in lines)
    return written.getvalue()


def latex(table: Table) -> str:
    """Return the table's main columns for a paper: booktabs, special characters escaped."""
    kept = {*_BRIEF, *(metric.name for metric in main_metrics())}
    columns = [c for c in table.columns if c.key in kept or c.key[:7] == "metric:"]
    shown = _tabulated(table, columns, one_line, "latex_booktabs")
    # What begins a row with a bracket or a star would be an argument of the line break before it.
    shown = re.sub(r"(?m)^( *)(?=[\[*])", r"\1{}", shown)
    for symbol, command in _SYMBOLS.items():
        shown = shown.replace(symbol, command)
    shown = "".join(c if c == "\n" or " " <= c <= "~" else "?" for c in shown)
    notes = [one_line(table.title), *(f"{n}: {one_line(v)}" for n, v in _facts(table))]
    notes += [table.reason, *map(one_line, table.legend), "needs \\usepackage{booktabs}"]
    return "".join(f"% {note}\n" for note in notes if note) + f"{shown}\n"


def _body(table: Table, columns: Sequence[Column]) -> list[str]:
    legend = [f"- {escaped(line)}" for line in table.legend]
    return [_tabulated(table, columns, escaped, "github"), "\n".join(legend)]


def _explained(table: Table) -> Iterable[str]:
    """Yield what the columns mean: those that are shown, and those of the CSV file alone."""
    for brief, head in ((True, "Columns"), (False, "In the CSV file besides")):
        said = [
            f"**{escaped(c.title)}** {escaped(c.help)}" for c in table.columns if c.brief is brief
        ]
        if said:
            yield f"{head}: {'; '.join(said)}."


def _tabulated(
    table: Table, columns: Sequence[Column], plain: Callable[[Any], str], form: str
) -> str:
    """Return rows in a form of tabulate: text to the left, numbers to the right.

    Args:
        table: whose rows.
        columns: that are shown.
        plain: writes strings.
        form: of tabulate.
    """
    from tabulate import tabulate

    if not columns:
        return ""
    heads = [f"{plain(c.title)}{_ARROWS[c.better]}" for c in columns]
    body = [
        [_inset(row, c) + cell_text(row.cells.get(c.key), c, plain) for c in columns]
        for row in table.rows
    ]
    sides = ["left" if c.type in ("text", "markup") else "right" for c in columns]
    return str(tabulate(body, heads, tablefmt=form, colalign=sides, disable_numparse=True))


def _inset(row: TableRow, column: Column) -> str:
    """Return what sets a row apart that stands beside another."""
    return "" if column.key != "row" or row.cells.get("role", "") in _LED else "· "


def _harmless(value: Any) -> Any:
    """Keep spreadsheets from taking a stranger's text for a formula, and NaN from being one."""
    if isinstance(value, float) and math.isnan(value):
        return None
    formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if formula else value


def _facts(table: Table) -> Iterable[tuple[str, Any]]:
    for name, value in table.facts.items():
        if value not in ("", 0, None):
            yield name, f"{value:,}" if isinstance(value, int) else value
