"""``dihal-bench new``: a file to start an interface from."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import atomic_path
from dihal_bench.core.registry import INTERFACES

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs

_NAME, _CLASS = "my-interface", "MyInterface"  # as the template has them
_RESERVED = ("auto", "teacher")  # words that tables and flags use beside names


def write_interface(name: str, out: Path | None = None) -> Path:
    """Write a working interface under a new name.

    Args:
        name: lower-case words joined by hyphens.
        out: the file; by default the name's, in the current folder.

    Returns:
        The file.

    Raises:
        UserError: the name is no name or taken, or the file exists or is no Python file.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(
            f"new {name}: an interface is named by lower-case words joined by hyphens, such as "
            f"{_NAME}."
        )
    if name in _RESERVED:
        raise UserError(f"new {name}: the word has a meaning of its own; choose another name.")
    if name in INTERFACES.names():
        raise UserError(
            f"new {name}: the name is taken, by {INTERFACES.origin(name)}; choose another."
        )
    path = out or Path(f"{name.replace('-', '_')}.py")
    if path.suffix != ".py":
        raise UserError(f"--out {path}: the file's name must end in .py.")
    if path.exists():
        raise UserError(f"--out {path}: the file exists already; choose another or remove it.")
    text = (
        resources.files(__package__).joinpath("interface_template.py").read_text(encoding="utf-8")
    )
    camel = "".join(word.capitalize() for word in name.split("-"))
    with atomic_path(path) as temporary:
        temporary.write_text(text.replace(_NAME, name).replace(_CLASS, camel), encoding="utf-8")
    return path


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("new", help="write a working interface to start from")
    parser.add_argument("name", metavar="NAME", help="its name, for example my-interface")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file (default: NAME.py)")
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.cli.new import write_interface

    path, name = write_interface(arguments.name, arguments.out), arguments.name
    print(f"wrote {path}")
    print(f"check it:  dihal-bench check --include {path}")
    print(f"train it:  dihal-bench run --include {path} --interface {name}")
    return 0
