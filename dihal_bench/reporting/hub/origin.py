"""Where a run's backbone and corpus come from, and what its record says of the machine."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from dihal_bench.core.names import BUNDLED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_TELLING = ("config", "interface", "backbone", "corpus", "environment", "scores", "audits")
_LONGEST = 1000  # characters of a path; what is longer is text


def hub_model(data: Mapping[str, Any]) -> str | None:
    """Return the hub id that a record's backbone is spelled like; None: a folder or bundled."""
    name = data["backbone"]["name"]
    return name if name != BUNDLED and _HUB_ID.fullmatch(name) else None


def hub_dataset(data: Mapping[str, Any]) -> str | None:
    """Return the hub id of a record's corpus; None: files or bundled."""
    repository = data["corpus"].get("notes", {}).get("repository", "")
    return repository if _HUB_ID.fullmatch(repository) else None


def paths(data: Mapping[str, Any]) -> list[str]:
    """Return the absolute paths that a record holds, longest first."""
    leaves = (leaf for field in _TELLING for leaf in _strings(data.get(field)))
    words = [leaf for leaf in leaves if len(leaf) <= _LONGEST] + _words(data["command"])
    task = f"{data['corpus']['name']}:validation"  # the corpus with the name of a set: no file
    found = {word for word in words if _absolute(word) and word != task}
    return sorted(found, key=lambda path: (-len(path), path))


def without_paths(data: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Return a record's fields with every known path cut to what tells it apart: its last part."""
    cut = {path: f"path/to/{path.rstrip('/').rpartition('/')[2]}" for path in known}
    return {key: _replaced(value, cut) for key, value in data.items()}


def _absolute(word: str) -> bool:
    return len(word) > 1 and word[0] in "/~" and "\n" not in word


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "excerpts":  # generated text
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _words(command: str) -> list[str]:
    """Return the words of a command line, and what is assigned in them."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that is not closed
        words = command.split()
    return words + [value for word in words if (value := word.partition("=")[2])]


def _replaced(value: Any, cut: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for path, short in cut.items():
            value = value.replace(path, short)
        return value
    if isinstance(value, dict):
        return {key: _replaced(inner, cut) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, cut) for inner in value]
    return value
