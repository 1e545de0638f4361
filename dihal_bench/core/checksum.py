"""A result's id stands for its content: whatever is changed afterwards is noticed, and named.

A digest of every field, and of every entry of a field, is kept as the seal of a record, or of
another result, and a digest of the seal ends its id. This catches accidents and edits by hand.
Whoever computes everything anew gets another id, and makes another result.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

_OWN = ("id", "seal")
_DIGITS = 8


def sealed(data: dict[str, Any]) -> dict[str, Any]:
    """Return a result's fields as plain JSON values, with a seal and an id that stand for them.

    Args:
        data: fields; ``run`` among them begins the id.
    """
    plain = json.loads(json.dumps(data))  # keys become text, as they will be read
    seal = _seal(plain)
    return {**plain, "seal": seal, "id": _id(plain["run"], seal)}


def broken(data: dict[str, Any]) -> str | None:
    """Return the name of what was changed since it was sealed; None: nothing was."""
    seal: dict[str, Any] = data["seal"]
    now = _seal(data)
    for name in sorted({*seal, *now}):
        if seal.get(name) != now.get(name):
            return name
    return None if data["id"] == _id(data["run"], seal) else "id"


def _seal(data: dict[str, Any]) -> dict[str, str]:
    return {name: _digest(value) for name, value in _entries(data)}


def _entries(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return every field's entries, or the field itself where it has none, by name."""
    found: list[tuple[str, Any]] = []
    for field, value in data.items():
        if field in _OWN:
            continue
        if isinstance(value, dict) and value:
            found += [(f"{field}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list) and value:
            found += [(f"{field}[{index}]", inner) for index, inner in enumerate(value)]
        else:
            found.append((field, value))
    return found


def _id(run: str, seal: dict[str, str]) -> str:
    return f"{run}-{_digest(seal)}"


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
