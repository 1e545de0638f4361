"""The sums of a record: whether they are complete, and can be sums of what their names say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.results.fields import TEACHER
from dihal_bench.results.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dihal_bench.results.metrics import Metric

COUNTS = ("tokens", "words", "bytes")
_PARTS = 1024  # that a record tells apart
_MOST_ROWS = 200
_MOST_COUNTED = 2.0**53  # of tokens, words or bytes: whole numbers that a float tells apart
_ROW = ("subject", "steps", "chains", "signal")
SAMPLED, *_TRIALS = "sampled", "zeroed", "shuffled", "true"  # signals
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}(@[1-9][0-9]{0,4})?")  # of sums
_MOST = 1e9  # of a token, whatever is added up
_ROUNDING = 1e-3  # of a token, in float32


def check_sums(sums: Mapping[str, Any], where: str, *, version: int) -> None:
    """Check the structure of sums, and that they are possible ones.

    Args:
        sums: of a record.
        where: for messages.
        version: of the record, which must have the metrics promised by it. Sums of others may be
            there, and of metrics that are unknown here.

    Raises:
        UserError: names the field that is wrong.
    """
    _check_keys(sums, ("documents", *COUNTS, "rows"), where)
    parts = len(sums["tokens"]) if isinstance(sums["tokens"], list) else 0
    for name in COUNTS:
        _check_parts(sums[name], parts, f"{where}.{name}")
        if min(sums[name], default=0) < 0:
            raise UserError(f"{where}.{name}: a count is negative.")
        if max(sums[name], default=0) > _MOST_COUNTED / _PARTS:
            raise UserError(f"{where}.{name}: a count is larger than any text.")
        if any(value % 1 for value in sums[name]):
            raise UserError(f"{where}.{name}: a count is no whole number.")
    documents = sums["documents"]
    if type(documents) is not int or not (
        documents == parts <= _PARTS or parts == _PARTS < documents
    ):
        raise UserError(f"{where}: the field documents is {documents}, of {parts} parts.")
    if not sum(sums["tokens"]):
        raise UserError(f"{where}.tokens: nothing was scored.")
    if not isinstance(sums["rows"], list) or len(sums["rows"]) > _MOST_ROWS:
        raise UserError(f"{where}: the field rows is no list of at most {_MOST_ROWS} rows.")
    for index, row in enumerate(sums["rows"]):
        _check_row(row, sums["tokens"], f"{where}.rows[{index}]", version)
    named = [tuple(row[name] for name in _ROW) for row in sums["rows"]]
    if len(set(named)) < len(named):
        raise UserError(f"{where}: the field rows has one row twice.")


def check_subjects(
    rows: Sequence[Mapping[str, Any]], interface: str, controls: Sequence[str], where: str
) -> None:
    """Check that everybody who took part has rows, and nobody else.

    Args:
        rows: checked ones.
        interface: that was benchmarked.
        controls: all that stood beside it.
        where: for messages.

    Raises:
        UserError: names who has none, or should not.
    """
    drawn = {row["subject"] for row in rows if row["signal"] == SAMPLED}
    teacher = [tuple(row[name] for name in _ROW) for row in rows if row["subject"] == TEACHER]
    if teacher != [(TEACHER, 1, 1, SAMPLED)]:
        raise UserError(f"{where}: the field rows must have one row of the teacher, S=1 and K=1.")
    for name in (interface, *controls):
        if name not in drawn:
            raise UserError(f"{where}: the field rows has no row of {name}, which took part.")
    known = {TEACHER, interface, *controls}
    for row in rows:
        if row["subject"] not in known:
            raise UserError(
                f"{where}: the field rows has one of {row['subject']}, which is neither the "
                "interface nor one of its controls."
            )


def _check_row(row: Any, tokens: Sequence[float], where: str, version: int) -> None:
    _check_keys(row, (*_ROW, "sums"), where)
    kinds = {"subject": str, "steps": int, "chains": int, "signal": str, "sums": dict}
    for name, kind in kinds.items():
        if type(row[name]) is not kind:
            raise UserError(f"{where}: the field {name} has the wrong type.")
    steps, chains = row["steps"], row["chains"]
    if steps < 0 or chains < 1 or chains & (chains - 1):
        raise UserError(
            f"{where}: steps is {steps} and chains is {chains}, and they must be 0 or more and a "
            "power of two."
        )
    if row["signal"] not in (SAMPLED, *_TRIALS):
        raise UserError(f"{where}: the field signal is {row['signal'][:80]!r}, which there is not.")
    known = METRICS.sums(chains)
    for name, values in row["sums"].items():
        if not _NAME.fullmatch(name) or (name not in known and name.partition("@")[0] in METRICS):
            raise UserError(f"{where}.sums: {name[:80]!r} is the name of no sum of such a row.")
        _check_parts(values, len(tokens), f"{where}.sums.{name}")
    for name, metric in known.items():
        if name not in row["sums"] and metric.since is not None and metric.since <= version:
            raise UserError(f"{where}.sums: the field {name} is missing.")
    for name, values in row["sums"].items():
        ends = _range(known.get(name), name, row["subject"])
        _check_range(values, tokens, ends, f"{where}.sums.{name}")


def _range(metric: Metric | None, name: str, subject: str) -> tuple[float, float]:
    """Return what a token may have."""
    mean = metric.mean if metric else None
    if metric is None or mean is None:
        return -_MOST, _MOST
    if subject == TEACHER and mean.itself is not None and not (mean.ties and name == metric.key):
        return mean.itself, mean.itself  # of rounded laws, in which tokens may tie, it may be less
    return metric.range


def _check_range(
    values: Sequence[float], tokens: Sequence[float], ends: tuple[float, float], where: str
) -> None:
    low, high = ends[0] - _ROUNDING, ends[1] + _ROUNDING
    for value, count in zip(values, tokens, strict=True):
        if not low * count <= value <= high * count:
            raise UserError(
                f"{where}: {value:g} is no sum of {count:g} tokens, each of which has from "
                f"{ends[0]:g} to {ends[1]:g}."
            )


def _check_keys(data: Any, names: tuple[str, ...], where: str) -> None:
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected an object.")
    for name in names:
        if name not in data:
            raise UserError(f"{where}: the field {name} is missing.")
    unknown = sorted(set(data) - set(names))
    if unknown:
        raise UserError(f"{where}: the field {unknown[0]} is unknown to this version.")


def _check_parts(values: Any, parts: int, where: str) -> None:
    if not isinstance(values, list) or len(values) != parts:
        raise UserError(f"{where}: expected a list of {parts} numbers, one for each document.")
    if not set(map(type, values)) <= {int, float}:
        raise UserError(f"{where}: not all of it are numbers.")
