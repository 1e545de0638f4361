"""Earlier names of modules, for the included files of finished runs.

Such a file is known by its content, so it cannot follow when a module moves. These are the modules
that the author of an interface, denoiser or sampler may have imported; classes are the same objects
under both names.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

MOVED = {  # inside dihal_bench; a package with all modules in it
    "backbone": "models",
    "distributed": "core.distributed",
    "errors": "core.errors",
    "files": "core.files",
    "names": "core.files",
    "registry": "core.registry",
    "text": "data",
}


class _Moved:
    """Finder and loader of modules under their earlier names; importlib.abc takes long to load."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        loader: Any = self
        return ModuleSpec(fullname, loader) if _today(fullname) else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python to make a module, which the one of today replaces."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(_today(module.__name__))


def _today(name: str) -> str:
    """Return the present name of a module that has moved, else nothing."""
    top, _, inner = name.partition(".")
    first, dot, rest = inner.partition(".")
    known = top == "dihal_bench" and first in MOVED
    return f"{top}.{MOVED[first]}{dot}{rest}" if known else ""


def install() -> None:
    """Let Python find modules under their earlier names.

    This comes before Python's own search, which would load a second copy of what moved with its
    package: it finds ``backbone.model`` in the folder of ``models``.
    """
    sys.meta_path.insert(0, _Moved())
