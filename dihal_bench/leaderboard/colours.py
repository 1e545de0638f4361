"""Colours of interfaces: one each, over all tables, figures and pages of a board."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PALETTE = (  # as the pages have it on white
    *("#0072b2", "#b94a00", "#007a5a", "#a3487b"),
    *("#8a6200", "#5b5bb8", "#4a6b00", "#6b6b6b"),
)
_FIRST = "hidden"  # keeps its colour whoever joins


def interfaces(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the interfaces of runs in the order of their colours.

    The blocks and settings that tell rows of one interface apart differ from table to table, so
    they have no colours of their own.
    """
    return sorted({str(run["interface"]) for run in runs}, key=lambda name: (name != _FIRST, name))


def colours(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the colour of what every run is called in tables, where paper is white."""
    order = interfaces(runs)
    return {
        str(run["label"]): PALETTE[order.index(str(run["interface"])) % len(PALETTE)]
        for run in runs
    }
