"""Packages of the project that a checkout keeps outside ``dihal_bench``: ``baselines``, ``tasks``.

An editable install finds them in one checkout, also when Python takes ``dihal_bench`` from another.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from dihal_bench.core.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]  # where dihal_bench really lies, links followed


def place_of(module: str) -> Path:
    """Return where a module of the project lies, without importing it: its file or folder.

    Args:
        module: full name, such as ``dihal_bench.tasks``.

    Raises:
        UserError: it is missing, or comes from another checkout than the rest of the project.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{module} is missing beside {_PACKAGE}; run `pip install -e .` in {_PACKAGE.parent}."
        )
    found = _place(Path(spec.origin))
    inner = Path(*module.split(".")[1:])
    own = (_PACKAGE / inner, _PACKAGE.parent / inner)  # as a wheel has it, as a checkout does
    if _place(Path(spec.origin).resolve()) not in own:
        raise UserError(
            f"dihal_bench comes from {_PACKAGE} and {module} from {found}, which is another "
            f"checkout; run `pip install -e .` in {_PACKAGE.parent}."
        )
    return found


def _place(origin: Path) -> Path:
    return origin.parent if origin.name == "__init__.py" else origin.with_suffix("")
