"""One sentence per table: which interface is first, and whether its noise bought anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dihal_bench.leaderboard.site.numbers import estimate, number


def verdict(table: Mapping[str, Any]) -> str:
    """Return what a table says at its first place; nothing where it ranks no interface."""
    columns = {column["key"]: column for column in table["columns"]}
    ranked = [
        row
        for row in table["rows"]
        if row["cells"].get("role") == "interface" and row["cells"].get("rank") == 1
    ]
    column = columns.get("brier1")
    if not ranked or column is None:
        return ""
    digits = column.get("digits", 4)
    best = max(ranked, key=lambda row: _number(row["cells"].get("brier1")))
    first = best["cells"]
    said = f"{_name(first)}{_place(first)} is first with {column['title']} "
    said += estimate(first.get("brier1"), digits)
    teacher = [row["cells"] for row in table["rows"] if row["cells"].get("role") == "teacher"]
    if teacher:
        said += f" (the teacher: {number(_value(teacher[0].get('brier1')), digits)})"
    ties = len(best.get("ties", ()))
    if ties:
        said += f", tied with {ties} more"
    return f"{said}. {_bought(first.get('gain'), columns.get('gain', {}).get('digits', 4))}".strip()


def _number(cell: Any) -> float:
    value = _value(cell)
    return float(value) if isinstance(value, int | float) else -math.inf


def _name(cells: Mapping[str, Any]) -> str:
    steps, chains = cells.get("steps"), cells.get("chains")
    counts = [f"S={number(steps)}"] if steps else []
    counts += [f"K={number(chains)}"] if chains and chains != 1 else []
    return " ".join([str(cells.get("row")), *counts])


def _place(cells: Mapping[str, Any]) -> str:
    """Say how much of the backbone a row stands in for: rows that replace more are no rivals."""
    replaced, retained = cells.get("replaced"), cells.get("retained")
    if not isinstance(replaced, int) or not isinstance(retained, int):
        return ""
    return f", replacing {replaced} of {replaced + retained} blocks,"


def _value(cell: Any) -> Any:
    return cell.get("value") if isinstance(cell, Mapping) else cell


def _bought(gain: Any, digits: int) -> str:
    """Say what the interval of the diffusion gain leaves open."""
    if not isinstance(gain, Mapping) or _value(gain) is None:
        return ""
    lo, hi = gain.get("lo"), gain.get("hi")
    said = f"Diffusion gain over its best control without diffusion: {estimate(gain, digits)}"
    if not isinstance(lo, int | float) or not isinstance(hi, int | float):
        return f"{said}, without an interval."
    if lo > 0:
        return f"{said}: noise helps here."
    if hi < 0:
        return f"{said}: the control is better."
    return f"{said}: level, the interval holds zero."
