"""The record of a run: one JSON file, validated when written and when read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core.checksum import broken, sealed
from dihal_bench.core.errors import UserError
from dihal_bench.core.explain import no_json, sentence
from dihal_bench.core.files import write_text
from dihal_bench.results.document_sums import check_subjects, check_sums
from dihal_bench.results.migrations import RECORD, migrated, version_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

REMEDY = "restore the record from its run, or run and score anew"  # whatever is wrong with one
_LARGEST = 2**63 - 1
_DEEPEST = 32  # lists and objects inside each other; ours are 8


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
    """The record of a complete run.

    Attributes:
        data: its JSON object, as this version writes it.
        written: the same as an earlier version wrote it, which its seal and id stand for; None:
            this version did.
    """

    data: dict[str, Any]
    written: dict[str, Any] | None = None

    @classmethod
    def of(cls, data: dict[str, Any]) -> Record:
        """Return a record of what was found, with an id that stands for its content."""
        return cls(sealed(data))

    @property
    def as_written(self) -> dict[str, Any]:
        """Return the JSON object of its file: of an earlier version, if one wrote it."""
        return self.written or self.data

    @property
    def scores(self) -> list[Score]:
        """Return the scores as objects."""
        return [Score(**score) for score in self.data["scores"]]

    @property
    def own_scores(self) -> list[Score]:
        """Return those on the run's own text; tasks that came later have theirs beside them."""
        own = own_task(self.data)
        return [score for score in self.scores if score.task == own]

    def write(self, path: Path) -> None:
        """Validate and write, atomically.

        Raises:
            UserError: a field is missing or of the wrong type, a number is not finite, a
                likelihood has no passed leak gate, or the content is not what the id stands for.
        """
        validate(self.as_written, str(path))
        write_text(path, self.text())

    def text(self) -> str:
        """Return the record as it is written."""
        return _layout(self.as_written)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read and validate.

        Raises:
            UserError: not readable, not JSON, or not a valid record; names file and field.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise UserError(f"{path} is not a readable record ({reason}); {REMEDY}.") from error
        try:
            data = json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            reason = no_json(error, text)
            raise UserError(f"{path} is not a readable record: {reason}; {REMEDY}.") from error
        now = validate(data, str(path))
        return cls(now, None if now is data else data)


def own_task(data: Mapping[str, Any]) -> str:
    """Return what the run's scores on its own text are filed under."""
    return f"{data['config']['corpus']}:validation"


def validate(data: Any, where: str) -> dict[str, Any]:
    """Return a record as this version writes it: its seal is checked, it is migrated, then checked.

    Args:
        data: JSON value, as it was written.
        where: for messages.

    Raises:
        UserError: names the file and the field that is wrong, and what to do.
    """
    if not isinstance(data, dict):
        raise UserError(f"{where}: a record is a JSON object; {REMEDY}.")
    try:
        version = version_of(data)
    except UserError as error:
        raise UserError(f"{where}: {error}.") from None
    try:
        return _checked(data, version, where)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}; {REMEDY}.") from None


def _checked(written: dict[str, Any], version: int, where: str) -> dict[str, Any]:
    """Return a record as this version writes it, if it is a valid one.

    Where it is not, that may come of an edit since it was sealed, which is said too.
    """
    _check_values(written, where, "")
    changed = _changed(written)
    data = migrated(written, version, RECORD)
    try:
        _check_schema(data, where)
        _check_sums(data, version, where)
    except UserError as error:
        if changed is None:
            raise
        raise UserError(f"{str(error).rstrip('.')}; {_edited(changed)}.") from None
    if changed is not None:
        raise UserError(f"{where}: {_edited(changed)}: it is not what the record's id stands for.")
    return data


def _changed(data: Mapping[str, Any]) -> str | None:
    """Return which field was changed since a record was sealed, as far as it has a seal."""
    kinds = {"seal": dict, "run": str, "id": str}
    if not all(isinstance(data.get(name), kind) for name, kind in kinds.items()):
        return None
    return broken(dict(data))


def _edited(field: str) -> str:
    return f"the field {field} was changed after the record was written"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON, each key of which is there once: a reader would see one, we another.

    Raises:
        UserError: a key is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1)
        raise UserError(f"the key {twice} is there twice")
    return found


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


def _check_schema(data: dict[str, Any], where: str) -> None:
    from pydantic import ValidationError

    from dihal_bench.results.schema import Schema

    try:
        Schema.model_validate(data)
    except ValidationError as error:
        raise UserError(sentence(error, where)) from None


def _check_sums(data: Mapping[str, Any], version: int, where: str) -> None:
    """Check the sums, and that a score on the run's own text is of every row.

    Args:
        data: the record.
        version: that it was written in, whose metrics it must have.
        where: for messages.
    """
    sums, own, task = data["sums"], data["interface"], own_task(data)
    check_sums(sums, f"{where}: sums", version=version)
    scored = {
        (score["subject"], score["steps"], score["signal"])
        for score in data["scores"]
        if score["task"] == task
    }
    for row in sums["rows"]:
        if (row["subject"], row["steps"], row["signal"]) not in scored:
            raise UserError(f"{where}: sums has a row of {row['subject']} that no score is of.")
    check_subjects(sums["rows"], own["name"], own["controls"], f"{where}: sums")


def _check_values(value: Any, where: str, field: str, depth: int = 0) -> None:
    """Refuse what JSON can say and nothing else can hold: not numbers, no text, endless nesting."""
    if depth > _DEEPEST:
        raise UserError(f"{where}: the field {field[:80]} is nested more than {_DEEPEST} deep.")
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
            _check_values(inner, where, f"{field}.{key}" if field else str(key), depth + 1)
    if isinstance(value, list | tuple) and not _all_finite(value):
        for index, inner in enumerate(value):
            _check_values(inner, where, f"{field}[{index}]", depth + 1)


def _all_finite(values: Sequence[Any]) -> bool:
    """Whether all are finite floats: nearly all of a record are, and this is quick."""
    return set(map(type, values)) == {float} and all(map(math.isfinite, values))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
