"""``dihal-bench claims``: the page of published claims, rendered from results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.errors import UserError

if TYPE_CHECKING:
    import argparse

    from dihal_bench.verbs.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("claims", help="judge published claims by the results in folders")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="with results")
    parser.add_argument("--out", type=Path, help="file of the page (default: print it)")
    parser.add_argument("--check", action="store_true", help="exit 1 if --out holds another page")
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.claims.evidence import Evidence
    from dihal_bench.claims.page import page
    from dihal_bench.files import atomic_path

    text = page(Evidence.read(arguments.folders))
    if arguments.check:
        return _check(arguments.out, text)
    if arguments.out is None:
        print(text)
        return 0
    with atomic_path(arguments.out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"written: {arguments.out}")
    return 0


def _check(path: Path | None, text: str) -> int:
    if path is None or not path.exists():
        raise UserError(f"--check needs --out with a page that exists, and {path} does not.")
    same = path.read_text(encoding="utf-8") == text
    print(f"{path} {'is what the results say' if same else 'differs from what the results say'}")
    return 0 if same else 1
