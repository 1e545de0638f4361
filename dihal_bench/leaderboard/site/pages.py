"""What a run's page shows of its record: tables of scores, layers and curves as plain rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dihal_bench.config.command_line import alone
from dihal_bench.leaderboard.site.numbers import pairs, parts

_ROW = ("subject", "steps", "chains", "signal")
_CHARTED = ("config", "scores", "frontier", "beside")
_VIEWS = ("paper", "matched")
_LAYER_FIELDS = ("score", "curvature", "stiffness", "effective_rank", "selected_share")


def thinned_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a record that figures and comparisons read."""
    bridge, locate = _mapping(record.get("bridge")), _mapping(record.get("locate"))
    own: dict[str, Any] = {key: record[key] for key in _CHARTED if key in record}
    own["curves"] = bridge.get("curves", {})
    own["oracle"] = bridge.get("oracle", {})
    own["cells"] = locate.get("cells", {})
    return own


def score_tables(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a table per task: a row per subject, S, K and signal, and a column per metric.

    Returns:
        {"task", "metrics": [(name, unit)], "rows": [{"subject", "steps", "chains", "signal",
        "kind", "cells": [a score or None, per metric]}]}, in the order of the record.
    """
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for score in map(_mapping, parts(record.get("scores"))):
        tasks.setdefault(str(score.get("task")), []).append(score)
    return [{"task": task, **_pivot(scores)} for task, scores in tasks.items()]


def _pivot(scores: list[Mapping[str, Any]]) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    rows: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for score in scores:
        metrics.setdefault(str(score.get("metric")), score.get("unit"))
        rows.setdefault(tuple(str(score.get(key)) for key in _ROW), []).append(score)
    return {
        "metrics": list(metrics.items()),
        "rows": [
            {
                **dict(zip(_ROW, key, strict=True)),
                "kind": Counter(str(score.get("kind")) for score in own).most_common(1)[0][0],
                "cells": _by_metric(own, list(metrics)),
            }
            for key, own in rows.items()
        ],
    }


def _by_metric(
    scores: list[Mapping[str, Any]], metrics: list[str]
) -> list[Mapping[str, Any] | None]:
    found = {str(score.get("metric")): score for score in scores}
    return [found.get(metric) for metric in metrics]


def flattened(value: Any, *, at: str = "") -> list[tuple[str, Any]]:
    """Return a configuration as dotted keys with values, sorted; lists are joined."""
    if isinstance(value, Mapping) and value:
        return [
            entry
            for key, inner in sorted(pairs(value), key=lambda pair: pair[0])
            for entry in flattened(inner, at=f"{at}.{key}" if at else key)
        ]
    if isinstance(value, list | tuple):
        return [(at, ", ".join(map(str, value)))]
    return [(at, None if value == {} else value)]


def own_command(record: Mapping[str, Any]) -> str:
    """Return the command of the run alone, if it was made with others."""
    config = _mapping(record.get("config"))
    return alone(str(record.get("command")), config) if config else ""


def layer_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per view and layer with the geometry proxies, as far as they were located."""
    cells = _mapping(_mapping(record.get("locate")).get("cells"))
    return [
        {
            **{"view": view, "layer": row.get("layer")},
            **{field: row.get(field) for field in _LAYER_FIELDS},
            "selected": row.get("layer") == cell.get("selected"),
        }
        for view in _VIEWS
        for cell in [_mapping(cells.get(view))]
        for row in map(_mapping, parts(cell.get("layers")))
    ]


def curve_points(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return for every subject and phase the first and the last point of its training curve."""
    curves = _mapping(_mapping(record.get("bridge")).get("curves"))
    return [
        {"subject": subject, "phase": phase, "loss": loss, "first": first.get(loss), "last": last}
        for subject, phases in pairs(curves)
        for phase, points in pairs(phases)
        if parts(points)
        for first in [_mapping(points[0])]
        for loss, last in pairs(points[-1])
        if loss != "tokens"
    ]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
