"""Tables of the leaderboard as Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import escaped, one_line
from dihal_bench.leaderboard.columns import main_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
_BRIEF = (  # what a paper has room for, beside the main metrics
    *("row", "rank", "gain_over", "replaced", "flop_ratio"),
    *("steps", "chains", "nfe", "kind", "seeds", "n"),
)
_ENDS = ("", "_lo", "_hi", "_among", "_flags")  # of the names of what a cell has in a CSV file
_SYMBOLS = {
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "‡": r"$\ddagger$", "σ": r"$\sigma$"},
    **{
        "·": r"$\cdot$",
        "‖": r"$\Vert$",
        "½": r"$\frac{1}{2}$",
        "−": "-",
        "–": "--",
        "…": r"\dots{}",
    },
}


def markdown(table: Mapping[str, Any]) -> str:
    """Return the columns that a reader compares, with facts, legend and what all columns mean.

    What strangers wrote stays text.
    """
    columns = [column for column in table["columns"] if column["brief"]]
    facts = [f"{name.replace('_', ' ')}: {escaped(value)}" for name, value in _facts(table)]
    head = f"### {escaped(table['title'])}"
    reason = [f"Not comparable with others: {table['reason']}."] if table["reason"] else []
    parts = [head, *reason, "; ".join(facts), *_body(table, columns), *_explained(table)]
    return "\n\n".join(parts) + "\n"


def excerpt(table: Mapping[str, Any]) -> str:
    """Return a table's rows and legend alone, as Markdown."""
    head = f"**{escaped(table['title'])}**"
    return "\n\n".join([head, *_body(table, table["columns"])])


def _body(table: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> list[str]:
    from tabulate import tabulate

    heads, body = _shown(table, columns, escaped)
    legend = [f"- {escaped(line)}" for line in table["legend"]]
    return [tabulate(body, heads, tablefmt="github", **_aligned(columns)), "\n".join(legend)]


def _explained(table: Mapping[str, Any]) -> Iterable[str]:
    """Yield what the columns mean: those that are shown, and those of the CSV file alone."""
    for brief, head in ((True, "Columns"), (False, "In the CSV file besides")):
        own = [column for column in table["columns"] if column["brief"] is brief]
        said = [f"**{escaped(c['title'])}** {escaped(c['help'])}" for c in own]
        if said:
            yield f"{head}: {'; '.join(said)}."


def csv(table: Mapping[str, Any]) -> str:
    """Return a table with every column and fact; an estimate has three, and flags one."""
    import pandas as pd

    rows = []
    for row in table["rows"]:
        plain: dict[str, Any] = {}
        for column in table["columns"]:
            plain |= _spread(column["key"], row["cells"].get(column["key"]))
        plain |= {"ties": "; ".join(row["ties"]), "runs": " ".join(row["runs"])}
        facts = {f"table:{name}": value for name, value in table["facts"].items()}
        rows.append(plain | facts | {"table:section": table["section"]})
    frame = pd.DataFrame(rows, dtype=object)
    spread = [f"{c['key']}{end}" for c in table["columns"] for end in _ENDS]
    spread = [name for name in spread if name in frame]  # what is of one column stands together
    frame = frame[[*spread, *(name for name in frame if name not in spread)]]
    for name in frame.columns:  # counts stay whole where a row has none
        values = frame[name].dropna()
        if len(values) and all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            frame[name] = frame[name].astype("Int64")
    frame.columns = [_harmless(name) for name in frame.columns]
    text: str = frame.map(_harmless).to_csv(index=False, lineterminator="\n")
    return text


def latex(table: Mapping[str, Any]) -> str:
    """Return the table's main columns for a paper: booktabs, special characters escaped."""
    from tabulate import tabulate

    kept = {*_BRIEF, *(metric.name for metric in main_metrics())}
    columns = [c for c in table["columns"] if c["key"] in kept or c["key"][:7] == "metric:"]
    heads, body = _shown(table, columns, one_line)
    shown = tabulate(body, heads, tablefmt="latex_booktabs", **_aligned(columns))
    # What begins a row with a bracket or a star would be an argument of the line break before it.
    shown = re.sub(r"(?m)^( *)(?=[\[*])", r"\1{}", shown)
    for symbol, command in _SYMBOLS.items():
        shown = shown.replace(symbol, command)
    shown = "".join(c if c == "\n" or " " <= c <= "~" else "?" for c in shown)
    notes = [one_line(table["title"]), *(f"{n}: {one_line(v)}" for n, v in _facts(table))]
    notes += [table["reason"], *map(one_line, table["legend"]), "needs \\usepackage{booktabs}"]
    return "".join(f"% {note}\n" for note in notes if note) + f"{shown}\n"


def number(value: float, kind: str, digits: int) -> str:
    """Return a number as a table shows it."""
    if kind in ("integer", "tokens"):
        return f"{value:,.0f}"
    if kind == "flops":
        return f"{value:.2e}"
    small = kind != "estimate" and 0 < abs(value) < 1e-4  # those stand beside others of their kind
    if small or not abs(value) < 1e6:
        return f"{value:.2g}" if math.isfinite(value) else str(value)
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")


def _shown(
    table: Mapping[str, Any], columns: Sequence[Mapping[str, Any]], text: Callable[[Any], str]
) -> tuple[list[str], list[list[str]]]:
    """Return the heads and cells of some columns, strings as ``text`` writes them."""
    heads = [f"{text(c['title'])}{_ARROWS[c['better']]}" for c in columns]
    body = [
        [_cell(row["cells"], column, text, table["legend"]) for column in columns]
        for row in table["rows"]
    ]
    return heads, body


def _aligned(columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how tabulate aligns columns: text to the left, numbers to the right."""
    sides = ["left" if column["type"] == "text" else "right" for column in columns]
    return {"colalign": sides, "disable_numparse": True}


def _cell(
    cells: Mapping[str, Any],
    column: Mapping[str, Any],
    text: Callable[[Any], str],
    legend: Sequence[str],
) -> str:
    value = cells.get(column["key"])
    if value is None:
        return "–"
    if column["key"] == "row":
        inset = "" if cells["role"] in ("teacher", "reference", "interface") else "· "
        return inset + text(value)
    plain = value if isinstance(value, dict) else {"value": value}
    if isinstance(plain["value"], str):
        return text(plain["value"])
    form = column["type"], column["digits"]
    shown = number(plain["value"], *form)
    if plain.get("lo") is not None:
        shown += f" [{number(plain['lo'], *form)}, {number(plain['hi'], *form)}]"
    if plain.get("among"):
        shown += f" ({text(plain['among'])})"
    return shown + "".join(_marks(plain.get("flags", ()), legend))


def _marks(flags: Iterable[str], legend: Iterable[str]) -> Iterable[str]:
    """Return the marks of flags: the first words of the legend's lines that are about them."""
    for flag in flags:
        yield from (f" {line.split()[0]}" for line in legend if f" {flag}:" in line)


def _spread(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    plain = {name: value["value"]}
    if "lo" in value:
        plain |= {f"{name}_lo": value["lo"], f"{name}_hi": value["hi"]}
    if "among" in value:
        plain[f"{name}_among"] = value["among"]
    flags = "; ".join(value.get("flags", ()))
    return plain | ({f"{name}_flags": flags} if flags else {})


def _harmless(value: Any) -> Any:
    """Keep spreadsheets from taking a stranger's text for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _facts(table: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in table["facts"].items():
        if value not in ("", 0, None):
            yield name, f"{value:,}" if isinstance(value, int) else value
