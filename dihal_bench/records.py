"""The record of a run: one JSON file, validated when written and when read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any

from dihal_bench.errors import UserError
from dihal_bench.files import write_text
from dihal_bench.seal import broken, sealed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = 3
KINDS = ("exact", "ensemble", "bound", "estimate")
_UNGATED = ("generated",)  # signals of scores that are no likelihoods
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "id": str,
    "seal": dict,
    "run": str,
    "created": str,
    "command": str,
    "config": dict,
    "interface": dict,
    "regime": str,
    "layer": int,
    "layer_policy": str,
    "backbone": dict,
    "corpus": dict,
    "budget": dict,
    "spent": dict,
    "locate": dict,
    "bridge": dict,
    "costs": dict,
    "scores": list,
    "sums": dict,
    "gates": dict,
    "environment": dict,
}
_LARGEST = 2**63 - 1
COUNTS = ("tokens", "words", "bytes")
_ROW_FIELDS: dict[str, type | tuple[type, ...]] = {
    "subject": str,
    "steps": int,
    "chains": int,
    "signal": str,
    "sums": dict,
}
_LATER: dict[str, type | tuple[type, ...]] = {"tasks": dict, "audits": dict}  # when scored again
_SCORE_FIELDS: dict[str, type | tuple[type, ...]] = {
    "subject": str,
    "metric": str,
    "value": (int, float),
    "lo": (int, float, NoneType),
    "hi": (int, float, NoneType),
    "kind": str,
    "n": int,
    "unit": str,
    "task": str,
    "regime": str,
    "version": int,
    "dtype": str,
    "steps": int,
    "chains": int,
    "nfe": int,
    "signal": str,
    "details": dict,
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number with all that is needed to compare it, or to refuse to.

    Attributes:
        subject: the interface, "teacher", or a control's name.
        metric: what is measured.
        value: point estimate, in ``unit``.
        lo: lower end of the 95 % interval; None: there is none.
        hi: upper end of it.
        kind: "exact", "ensemble" (of ``chains``), "bound" or "estimate".
        n: scored tokens.
        unit: of the value.
        task: text it was measured on.
        regime: "causal" or "sequence".
        version: of the scorer.
        dtype: of the arithmetic.
        steps: network evaluations per chain S.
        chains: chains in the ensemble K.
        nfe: S x K, and K evaluations of a decoder that is a network.
        signal: what the recovery was given: "sampled", else "zeroed", "shuffled" or "true" for a
            trial; "generated" where its own text is scored.
        details: stored sums, the control a gain refers to, convergence.
    """

    subject: str
    metric: str
    value: float
    lo: float | None
    hi: float | None
    kind: str
    n: int
    unit: str
    task: str
    regime: str
    version: int
    dtype: str
    steps: int
    chains: int
    nfe: int
    signal: str
    details: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Record:
    """The record of a complete run; ``data`` is its JSON object."""

    data: dict[str, Any]

    @classmethod
    def of(cls, data: dict[str, Any]) -> Record:
        """Return a record of what was found, with an id that stands for its content."""
        return cls(sealed(data))

    @property
    def scores(self) -> list[Score]:
        """Return the scores as objects."""
        return [Score(**score) for score in self.data["scores"]]

    @property
    def own_scores(self) -> list[Score]:
        """Return those on the run's own text; tasks that came later have theirs beside them."""
        later = self.data.get("tasks", {})
        return [score for score in self.scores if score.task not in later]

    def write(self, path: Path) -> None:
        """Validate and write, atomically.

        Raises:
            UserError: a field is missing or of the wrong type, a number is not finite, a
                likelihood has no passed leak gate, or the content is not what the id stands for.
        """
        validate(self.data, str(path))
        write_text(path, _layout(self.data))

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read and validate.

        Raises:
            UserError: not readable, not JSON, or not a valid record; names file and field.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            validate(data, str(path))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} is not a readable record ({error}).") from error
        return cls(data)


def validate(data: Any, where: str) -> None:
    """Check a record's structure.

    Raises:
        UserError: names the file and the field that is wrong.
    """
    if not isinstance(data, dict):
        raise UserError(f"{where}: a record is a JSON object.")
    if data.get("schema") != SCHEMA:
        raise UserError(
            f"{where}: schema is {data.get('schema')}, this version reads {SCHEMA}; read it with "
            "the version that wrote it (environment.git), or run its command again with this one."
        )
    _check_fields(data, _FIELDS, where)
    _check_fields(data, {k: v for k, v in _LATER.items() if k in data}, where)
    _refuse_unknown(data, {*_FIELDS, *_LATER}, where)
    _check_values(data, where, "")
    gates = data["gates"].get("leak")
    if not isinstance(gates, dict):
        raise UserError(f"{where}: the field gates has no object called leak.")
    for index, score in enumerate(data["scores"]):
        _check_score(score, gates, f"{where}: scores[{index}]")
    _check_sums(data["sums"], f"{where}: sums")
    changed = broken(data)
    if changed:
        raise UserError(
            f"{where}: the field {changed} was changed after the record was written: it is not "
            "what the record's id stands for; restore it, or run and score anew."
        )


def _layout(data: dict[str, Any]) -> str:
    """Return a record as JSON: keys sorted, a line per score and per entry of a field."""

    def plain(value: Any) -> str:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)

    def lines(value: Any) -> str:
        if isinstance(value, dict) and value:
            inner = [f"{plain(key)}: {plain(value[key])}" for key in sorted(value)]
            return "{\n  " + ",\n  ".join(inner) + "\n }"
        if isinstance(value, list) and value:
            return "[\n  " + ",\n  ".join(map(plain, value)) + "\n ]"
        return plain(value)

    fields = [f"{plain(key)}: {lines(data[key])}" for key in sorted(data)]
    return "{\n " + ",\n ".join(fields) + "\n}\n"


def _check_score(score: Any, gates: dict[str, Any], where: str) -> None:
    _check_fields(score, _SCORE_FIELDS, where)
    _refuse_unknown(score, set(_SCORE_FIELDS), where)
    if score["kind"] not in KINDS:
        raise UserError(f"{where}: kind is {score['kind']!r}, not one of {', '.join(KINDS)}.")
    gate = gates.get(score["subject"])
    passed = isinstance(gate, dict) and gate.get("verdict") == "pass"
    if score["signal"] not in _UNGATED and score["subject"] != "teacher" and not passed:
        raise UserError(f"{where}: {score['subject']} has a score but no passed leak gate.")


def _check_fields(data: Any, fields: dict[str, type | tuple[type, ...]], where: str) -> None:
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected an object.")
    for name, kind in fields.items():
        if name not in data:
            raise UserError(f"{where}: the field {name} is missing.")
        if not isinstance(data[name], kind) or isinstance(data[name], bool):
            found = type(data[name]).__name__
            raise UserError(f"{where}: the field {name} has the wrong type ({found}).")


def _check_sums(sums: dict[str, Any], where: str) -> None:
    counts: dict[str, type | tuple[type, ...]] = dict.fromkeys(COUNTS, list)
    _check_fields(sums, {"documents": int, **counts, "rows": list}, where)
    parts = len(sums["tokens"])
    for name in COUNTS:
        _check_parts(sums[name], parts, f"{where}.{name}")
    for index, row in enumerate(sums["rows"]):
        own = f"{where}.rows[{index}]"
        _check_fields(row, _ROW_FIELDS, own)
        _refuse_unknown(row, set(_ROW_FIELDS), own)
        for name, values in row["sums"].items():
            _check_parts(values, parts, f"{own}.sums.{name}")


def _check_parts(values: Any, parts: int, where: str) -> None:
    if not isinstance(values, list) or len(values) != parts:
        raise UserError(f"{where}: expected a list of {parts} numbers, one for each document.")
    if not set(map(type, values)) <= {int, float}:
        raise UserError(f"{where}: not all of it are numbers.")


def _refuse_unknown(data: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise UserError(f"{where}: the field {unknown[0]} is unknown to this version.")


def _check_values(value: Any, where: str, field: str) -> None:
    """Refuse what JSON can say and nothing else can hold: not numbers, and no text."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: the field {field} is {value}, not a finite number.")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise UserError(f"{where}: the field {field} is larger than any count.")
    if isinstance(value, str) and not _is_text(value):
        raise UserError(f"{where}: the field {field} is no text in Unicode.")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not _is_text(str(key)):
                raise UserError(f"{where}: the field {field} has a key that is no Unicode text.")
            _check_values(inner, where, f"{field}.{key}" if field else str(key))
    if isinstance(value, list | tuple) and not _all_finite(value):
        for index, inner in enumerate(value):
            _check_values(inner, where, f"{field}[{index}]")


def _all_finite(values: Sequence[Any]) -> bool:
    """Whether all are finite floats: nearly all of a record are, and this is quick."""
    return set(map(type, values)) == {float} and all(map(math.isfinite, values))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
