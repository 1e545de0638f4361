"""``dihal-bench new``: a file to start an interface from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("new", help="write a working interface to start from")
    parser.add_argument("name", metavar="NAME", help="its name, for example my-interface")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file (default: NAME.py)")
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.cli.scaffold import write_interface

    path, name = write_interface(arguments.name, arguments.out), arguments.name
    print(f"wrote {path}")
    print(f"check it:  dihal-bench check --include {path}")
    print(f"train it:  dihal-bench run --include {path} --interface {name}")
    return 0
