"""The sums of a record: whether they are complete, and can be sums of what their names say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.results.fields import TEACHER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COUNTS = ("tokens", "words", "bytes")
_PARTS = 1024  # that a record tells apart
_MOST_ROWS = 200
_MOST_COUNTED = 2.0**53  # of tokens, words or bytes: whole numbers that a float tells apart
_ROW = ("subject", "steps", "chains", "signal")
_OWN, *_TRIALS = "sampled", "zeroed", "shuffled", "true"  # signals
_METRIC = re.compile(r"nll@[1-9][0-9]{0,4}|[a-z][a-z0-9_]{0,40}")  # of sums
_MOST_NATS = 1e9  # of a token
NATS, _SHARE = (0.0, _MOST_NATS), (0.0, 1.0)
RANGES = {  # of a token; of a likelihood NATS
    "brier1": (-1.0, 1.0),
    **dict.fromkeys(("kl", "kl_reverse", "kl_chain"), NATS),
    **dict.fromkeys(("top1", "top1_chain"), _SHARE),
}
_OF_TEACHER = {  # held against itself; top1 is of rounded laws, in which two tokens may tie
    **dict.fromkeys(("kl", "kl_reverse", "kl_chain"), (0.0, 0.0)),
    "top1_chain": (1.0, 1.0),
}
_ROUNDING = 1e-3  # of a token, in float32


def check_sums(sums: Mapping[str, Any], where: str) -> None:
    """Check the structure of sums, and that they are possible ones.

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
        _check_row(row, sums["tokens"], f"{where}.rows[{index}]")
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
    drawn = {row["subject"] for row in rows if row["signal"] == _OWN}
    teacher = [tuple(row[name] for name in _ROW) for row in rows if row["subject"] == TEACHER]
    if teacher != [(TEACHER, 1, 1, _OWN)]:
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


def _check_row(row: Any, tokens: Sequence[float], where: str) -> None:
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
    if row["signal"] not in (_OWN, *_TRIALS):
        raise UserError(f"{where}: the field signal is {row['signal'][:80]!r}, which there is not.")
    needed = set(_needed(chains))
    for name, values in row["sums"].items():
        if not _METRIC.fullmatch(name) or (name.startswith("nll@") and name not in needed):
            raise UserError(f"{where}.sums: {name[:80]!r} is the name of no sum of such a row.")
        _check_parts(values, len(tokens), f"{where}.sums.{name}")
    for name in sorted(needed - set(row["sums"])):
        raise UserError(f"{where}.sums: the field {name} is missing.")
    own = RANGES | (_OF_TEACHER if row["subject"] == TEACHER else {})
    for name, values in row["sums"].items():
        usual = NATS if name.startswith("nll@") else (-_MOST_NATS, _MOST_NATS)
        _check_range(values, tokens, own.get(name, usual), f"{where}.sums.{name}")


def _needed(chains: int) -> Iterator[str]:
    """Yield the names of the sums of a row: likelihoods of 1, 2, 4, ... chains, and all others."""
    yield from RANGES
    size = 1
    while size <= chains:
        yield f"nll@{size}"
        size *= 2


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
