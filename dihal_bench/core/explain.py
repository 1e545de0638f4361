"""What is wrong with a file that somebody else wrote: the field or line, and what belongs there.

Libraries say it to programmers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError

_SHOWN = 80  # letters of a value
_KINDS = {
    **dict.fromkeys(("dict", "mapping", "model", "model_attributes"), "an object"),
    **{"list": "a list", "tuple": "a list", "string": "text", "bool": "true or false"},
    **{"int": "a whole number", "float": "a number", "int_from_float": "a whole number"},
}
_NAMES: dict[type, str] = {
    **{dict: "an object", list: "a list", str: "text", bool: "true or false"},
    **{int: "a number", float: "a number", type(None): "null"},
}
_LIMITS = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "string_too_short": "text of {min_length} letters or more",
    "string_too_long": "text of {max_length} letters or fewer",
    "string_pattern_mismatch": "one line of text without characters that such a field never has",
    "too_short": "{min_length} entries or more",
    "too_long": "{max_length} entries or fewer",
    "literal_error": "{expected}",
    "finite_number": "a finite number",
}


def sentence(error: ValidationError, where: str) -> str:
    """Return the first thing that is wrong: file, place, field, and what belongs there."""
    return f"{where}: {fault(error)}."


def fault(error: ValidationError) -> str:
    """Return the first thing that is wrong as a clause: place, field, and what belongs there."""
    first = error.errors(include_url=False)[0]
    place = ""
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    kind, value = first["type"], first["input"]
    if kind == "value_error":
        said = first["msg"].removeprefix("Value error, ")
        return f"{place}: {said}" if place else said
    if not place:
        return "it is no JSON object with fields"
    outer, _, name = place.rpartition(".")
    at = f"{outer}: the field {name}" if outer else f"the field {name}"
    if kind == "missing":
        return f"{at} is missing"
    if kind == "extra_forbidden":
        return f"{at} is unknown to this version"
    base = kind.removesuffix("_type").removesuffix("_parsing")
    if base in _KINDS:
        found = _NAMES.get(type(value), "something else")
        return f"{at} has the wrong type: it is {found} and must be {_KINDS[base]}"
    return f"{at} is {_brief(value)}; it must be {_limit(first)}"


def no_json(error: Exception, text: str) -> str:
    """Return why a text is no JSON, with its line."""
    if isinstance(error, RecursionError):
        return "its lists and objects are nested too deeply"
    if isinstance(error, UserError):
        return str(error)
    if not isinstance(error, json.JSONDecodeError):
        return "a number in it has more digits than can be read"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"it is cut off in line {len(text.splitlines()) or 1}"
    return f"line {error.lineno}, column {error.colno} is no JSON"


def _limit(first: Mapping[str, Any]) -> str:
    known = _LIMITS.get(first["type"])
    if known is None:
        return f"otherwise ({first['msg']})"
    return known.format(**first.get("ctx", {}))


def _brief(value: object) -> str:
    if isinstance(value, dict | list):
        return f"{_NAMES[type(value)]} of {len(value):,}"
    return repr(str(value)[:_SHOWN])
