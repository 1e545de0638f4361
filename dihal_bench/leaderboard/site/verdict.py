"""What a table says in words: which interface is first, and whether its noise bought anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dihal_bench.leaderboard.site.numbers import estimate, number
from dihal_bench.markdown import counted


def verdict(table: Mapping[str, Any]) -> str:
    """Return what a table says at its first place, and why nothing stands there if it does not."""
    columns = {column["key"]: column for column in table["columns"]}
    rows = [row for row in table["rows"] if row["cells"].get("role") == "interface"]
    column = columns.get("brier1")
    if not rows or column is None:
        return ""
    ranked = [row for row in rows if _value(row["cells"].get("rank")) == 1]
    if not ranked:
        return "No interface has a rank: that takes three trainings that differ in their seed."
    digits = column.get("digits", 4)
    best = max(ranked, key=_brier)
    first = best["cells"]
    said = f"{_place(first)}{_name(first)} is first{_ties(best)}: {column['title']} "
    said += estimate(first.get("brier1"), digits)
    teacher = [row["cells"] for row in table["rows"] if row["cells"].get("role") == "teacher"]
    if teacher:
        said += f" (the teacher: {number(_value(teacher[0].get('brier1')), digits)})"
    seeds = first.get("seeds")
    said += f", mean of {counted(seeds, 'training')}" if isinstance(seeds, int) else ""
    bought = _bought(first.get("gain"), columns.get("gain", {}).get("digits", 4))
    return " ".join([f"{said}.", *_elsewhere(ranked, first), bought])


def _elsewhere(ranked: list[Mapping[str, Any]], first: Mapping[str, Any]) -> Iterator[str]:
    """Yield who is first among as many replaced blocks at other S: it can be another."""
    own = [row for row in ranked if row["cells"].get("replaced") == first.get("replaced")]
    for steps in sorted(
        {str(row["cells"].get("steps")) for row in own} - {str(first.get("steps"))}
    ):
        best = max((row for row in own if str(row["cells"].get("steps")) == steps), key=_brier)
        yield f"At S={steps} it is {best['cells'].get('row')}{_ties(best)}."


def _ties(row: Mapping[str, Any]) -> str:
    ties = len(row.get("ties", ()))
    return f" (tied with {ties} more)" if ties else ""


def _brier(row: Mapping[str, Any]) -> float:
    return _number(row["cells"].get("brier1"))


def _number(cell: Any) -> float:
    value = _value(cell)
    return float(value) if isinstance(value, int | float) else -math.inf


def _name(cells: Mapping[str, Any]) -> str:
    chains = cells.get("chains")
    return f"{cells.get('row')}{f', K={number(chains)},' if chains and chains != 1 else ''}"


def _place(cells: Mapping[str, Any]) -> str:
    """Say among what: rows that replace more of the backbone are no rivals, nor other S."""
    replaced, retained = cells.get("replaced"), cells.get("retained")
    at = f"at S={number(cells.get('steps'))} "
    if not isinstance(replaced, int) or not isinstance(retained, int):
        return at.capitalize()
    return f"Where {replaced} of {counted(replaced + retained, 'block')} are replaced, {at}"


def _value(cell: Any) -> Any:
    return cell.get("value") if isinstance(cell, Mapping) else cell


def _bought(gain: Any, digits: int) -> str:
    """Say what the interval of the diffusion gain leaves open."""
    if not isinstance(gain, Mapping) or _value(gain) is None:
        return "No control without diffusion stands beside it: what its noise buys is not known."
    lo, hi = gain.get("lo"), gain.get("hi")
    said = f"Diffusion gain over its best control without diffusion: {estimate(gain, digits)}"
    if not isinstance(lo, int | float) or not isinstance(hi, int | float):
        return f"{said}, without an interval."
    if lo > 0:
        return f"{said}: noise helps here."
    if hi < 0:
        return f"{said}: the control is better."
    return f"{said}: level, the interval holds zero."
