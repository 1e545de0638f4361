"""What a run's page shows of its record: tables of scores, layers and curves as plain rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dihal_bench.config.command_line import alone
from dihal_bench.core.markdown import counted
from dihal_bench.results.metrics import KL
from dihal_bench.results.table import NONE, TableCell
from dihal_bench.studies.sweep.outcomes import SHORT
from dihal_bench.studies.sweep.predictors import SCORE

if TYPE_CHECKING:
    from collections.abc import Sequence

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


_LOSSES = (
    SHORT[KL.key],
    SHORT["kl_one_step"],
)  # by which layers are ranked: the first that is there
_SCORES = {SCORE: "the score of raw states", f"{SCORE}, matched": "the score of what is diffused"}
_EVERYTHING = "layers"  # the axis along which everything below a layer is replaced


def geometry(sweeps: Sequence[Mapping[str, Any]]) -> str:
    """Return whether scores rank layers better than depth where each costs as much, and why there.

    Args:
        sweeps: of a board.
    """
    equal = [own for own in sweeps if str(own.get("axis")).startswith("span-")]
    said = []
    for loss in _LOSSES:
        found = {
            name: [gain for own in equal for gain in _gains(own, name, loss)] for name in _SCORES
        }
        clauses = [
            _against_depth(_SCORES[name], gains, loss if not place else "", equal)
            for place, (name, gains) in enumerate(found.items())
            if gains
        ]
        if clauses:
            said.append(
                "Where the bridge of every layer replaces equally many blocks, "
                f"{'; '.join(clauses)}."
            )
            break
    if any(own.get("axis") == _EVERYTHING for own in sweeps):
        said.append(
            "Where everything below a layer is replaced, depth and cost are the same thing: any "
            "score that falls with depth looks perfect there."
        )
    return " ".join(said)


def _gains(sweep: Mapping[str, Any], score: str, loss: str) -> list[Mapping[str, Any]]:
    """Return a score's rank correlation with low loss minus that of depth, if it is known."""
    return [
        row["minus_depth"]
        for row in parts(sweep.get("correlations"))
        if (row.get("predictor"), row.get("loss")) == (score, loss)
        and isinstance(row.get("minus_depth"), Mapping)
        and None not in (row["minus_depth"].get("lo"), row["minus_depth"].get("hi"))
    ]


def _against_depth(
    score: str, gains: Sequence[Mapping[str, Any]], loss: str, sweeps: Sequence[Mapping[str, Any]]
) -> str:
    """Say on how many backbones intervals lie above and below what depth alone reaches."""
    alone = len({own.get("backbone") for own in sweeps}) == len(sweeps)
    of = "backbone" if alone else "sweep"
    above = sum(gain["lo"] > 0 for gain in gains)
    below = sum(gain["hi"] < 0 for gain in gains)
    same = len(gains) - above - below
    does = f" ranks layers by {loss} better than plain depth" if loss else ": better"
    told = [f"{score}{does} on {above or 'none'} of {counted(len(gains), of)}"]
    told += [f"worse on {below}"] if below else []
    told += [f"not told apart from it on {same}"] if same else []
    return ", ".join(told)


_ARCHITECTURES = {"llama": "Llama", "gpt2": "GPT-2", "gpt_neox": "GPT-NeoX"}
_UNITS = ((1e9, "B"), (1e6, "M"))
SIZES = ("architecture", "blocks", "parameters", "vocabulary", "training_tokens")


def about(table: Mapping[str, Any]) -> str:
    """Return what model a table is of, on how much text, and what its budget and scores are of.

    Args:
        table: of a board; what its facts lack is left out.
    """
    facts = table["facts"]
    sentences = [_model(facts), _budget(facts), _scored(table)]
    return " ".join(f"{one}." for one in sentences if one)


def _model(facts: Mapping[str, Any]) -> str:
    architecture = facts.get("architecture")
    parameters, vocabulary = _count(facts, "parameters"), _count(facts, "vocabulary")
    size = [
        str(_ARCHITECTURES.get(str(architecture), architecture)) if architecture else "",
        counted(_count(facts, "blocks"), "block") if _count(facts, "blocks") else "",
        f"{_short(parameters)} parameters" if parameters else "",
        f"a vocabulary of {number(vocabulary)}" if vocabulary else "",
    ]
    parts = [f"The model {facts.get('backbone')}: {', '.join(filter(None, size))}"]
    tokens = _count(facts, "training_tokens")
    parts += [f"interfaces are trained on {number(tokens)} tokens of text"] if tokens else []
    return "; ".join(parts) if any(size) else ""


def _budget(facts: Mapping[str, Any]) -> str:
    spent = {
        "diffusion": _count(facts, "diffusion_tokens"),
        "recovery": _count(facts, "recovery_tokens"),
    }
    said = [
        f"{number(tokens)} tokens of {phase} training" for phase, tokens in spent.items() if tokens
    ]
    return f"The budget {facts.get('budget')}: {', '.join(said)}" if said else ""


def _scored(table: Mapping[str, Any]) -> str:
    facts = table["facts"]
    tokens, documents = _count(facts, "tokens"), _count(facts, "documents")
    if table.get("kind") != "likelihood" or not tokens or not documents:
        return ""
    return f"Scored are {number(tokens)} tokens of {counted(documents, 'document')}"


def _count(facts: Mapping[str, Any], name: str) -> int:
    value = facts.get(name)
    return value if type(value) is int else 0


def _short(count: int) -> str:
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return number(count)
