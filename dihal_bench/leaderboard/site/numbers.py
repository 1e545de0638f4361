"""Numbers of a board as text, and its parts as lists, whatever a record holds in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dihal_bench.results.table import NONE, TableCell

_EXPONENTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LARGE, _SMALL = 1e7, 1e-4  # beyond these a power of ten is written


def number(value: Any, digits: int | None = None) -> str:
    """Return a value as text.

    Args:
        value: a number; of anything else the text, of nothing a dash.
        digits: after the point, of what is no integer; None: four that are significant.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) < _LARGE * 1e5:
        return f"{value:,}".replace("-", "−")
    if isinstance(value, int | float) and math.isfinite(value):
        return _real(float(value), digits)
    return str(value) if value or value == 0 else NONE


def _real(value: float, digits: int | None) -> str:
    if abs(value) >= _LARGE or (digits is None and 0 < abs(value) < _SMALL):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        text = f"{mantissa}·10{str(int(exponent)).translate(_EXPONENTS)}"
    elif digits is None:
        text = f"{value:.4g}" if abs(value) < 1e3 else f"{value:,.0f}"
    else:
        text = f"{value:,.{digits}f}"
    return text.replace("-", "−")


def estimate(value: Any, digits: int | None = None) -> str:
    """Return an estimate with its interval, all with as many decimals; or a plain number."""
    if not isinstance(value, Mapping):
        return number(value, digits)
    if digits is None:
        digits = _decimals(value.get("value"))
    if value.get("value") is None:
        return NONE
    cell = TableCell(value["value"], value.get("lo"), value.get("hi"))
    return cell.text(lambda own: number(own, digits))


def _decimals(value: Any) -> int | None:
    """Return how many decimals show four significant digits, four at most."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return 4 if abs(value) < 1 else max(0, 3 - math.floor(math.log10(abs(value))))


def gigabytes(value: Any) -> str:
    """Return a number of bytes in gigabytes."""
    return number(value / 1e9 if isinstance(value, int | float) else value, 2)


def pairs(value: Any) -> list[tuple[str, Any]]:
    """Return a mapping's entries in its own order; none of anything else."""
    if not isinstance(value, Mapping):
        return []
    return [(str(key), inner) for key, inner in value.items()]


def parts(value: Any) -> list[Any]:
    """Return a list as it is; nothing of anything else."""
    return list(value) if isinstance(value, list | tuple) else []
