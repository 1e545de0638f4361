"""Figures that were drawn before, kept in the cache by the digest of what they show."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dihal_bench.core import kept, plotting
from dihal_bench.core.files import cache_folder
from dihal_bench.leaderboard import colours

_LIBRARIES = ("matplotlib", "numpy", "pillow")  # which draw, lay out and compress


def digest(*content: Any, code: Path) -> str:
    """Return what stands for a figure: all that it shows, and the code that draws it.

    Args:
        content: JSON values.
        code: the module that draws.
    """
    shown = json.dumps([_drawing(code), *content], sort_keys=True)
    return hashlib.sha256(shown.encode()).hexdigest()


@cache
def _drawing(code: Path) -> list[str]:
    modules = [code, *(Path(inspect.getfile(own)) for own in (plotting, colours))]
    return [*map(version, _LIBRARIES), *map(kept.sha256, modules)]


def take(name: str, stem: Path) -> list[Path]:
    """Write ``stem``.png and ``stem``.svg as they were drawn before; nothing if they were not.

    Args:
        name: of the figure, by ``digest``.
        stem: of the files.

    Returns:
        Their paths, if any.
    """
    file = _file(name)
    if not kept.usable(file):
        return []
    files = {stem.with_suffix(suffix): own for suffix, own in kept.read_json(file).items()}
    stem.parent.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        path.write_bytes(base64.b64decode(content))
    return list(files)


def keep(name: str, paths: list[Path]) -> None:
    """Keep the files of a figure."""
    content = {path.suffix: base64.b64encode(path.read_bytes()).decode() for path in paths}
    kept.write_json(_file(name), content)


def _file(name: str) -> Path:
    return cache_folder() / "figures" / f"{name}.json"
