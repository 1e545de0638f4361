"""``dihal-bench claims``: the page of published claims, rendered from results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("claims", help="judge published claims by the results in folders")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="with results")
    parser.add_argument("--out", type=Path, help="file of the page (default: print it)")
    parser.add_argument("--check", action="store_true", help="exit 1 if --out holds another page")
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    if arguments.check:
        _check_out(arguments.out)
    from dihal_bench.core.files import write_text
    from dihal_bench.reporting.claims_page import page
    from dihal_bench.studies.claims.evidence import Evidence

    text = page(Evidence.read(arguments.folders))
    if arguments.check:
        return _compare(arguments.out, text)
    if arguments.out is None:
        print(text, end="")
        return 0
    write_text(arguments.out, text)
    print(f"written: {arguments.out}")
    return 0


def _check_out(path: Path | None) -> None:
    if path is None:
        raise UserError("--check compares a page with the results; name the page with --out FILE.")
    if not path.is_file():
        raise UserError(f"--check: {path} is no file; write it first, without --check.")


def _compare(path: Path, text: str) -> int:
    same = path.read_bytes() == text.encode()
    print(f"{path} {'is what the results say' if same else 'differs from what the results say'}")
    return 0 if same else 1
