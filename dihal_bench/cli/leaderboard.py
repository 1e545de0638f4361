"""``dihal-bench leaderboard``: records in, tables, figures and pages out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError
from dihal_bench.core.markdown import counted
from dihal_bench.core.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.cli.common import Verbs
    from dihal_bench.leaderboard.store import Store

_FOLDER = Path("leaderboards")
_RUNS = "folders of runs, or files of records"
_RENDERING = ("keep_going", "check", "readme")  # flags of rendering, none of which an action takes


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "leaderboard", help="render tables, figures and pages from records; add records"
    )
    _folder(parser, default=None)
    parser.add_argument("--keep-going", action="store_true", help="leave out what cannot be read")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 1 if files differ or were left out",
    )
    parser.add_argument("--readme", type=Path, help="a README whose headline table is rendered too")
    parser.add_argument("--hub-card", type=Path, metavar="RUN", help="write a run's model card")
    parser.set_defaults(work=_render)
    actions = parser.add_subparsers(metavar="ACTION")
    own = actions.add_parser("add", help="copy the records of finished runs")
    own.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=_RUNS)
    _folder(own)
    own.set_defaults(work=_add)
    own = actions.add_parser(
        "verify",
        help="hold records against themselves: what CI asks of rows",
        epilog="Exit status: 0 if all records are valid and say the same as their sums, 1 if one "
        "is not or does not, 2 if something that was named is not there.",
    )
    own.add_argument(
        "records",
        nargs="*",
        type=Path,
        metavar="RECORD",
        help=f"{_RUNS} (default: all records of the leaderboard)",
    )
    _folder(own)
    own.set_defaults(work=_verify)
    own = actions.add_parser("submit-template", help="how somebody else adds a row")
    own.set_defaults(work=_template)


def _folder(parser: argparse.ArgumentParser, default: str | None = argparse.SUPPRESS) -> None:
    """Declare --dir; an action that is not given it leaves what stood before the action."""
    parser.add_argument(
        "--dir", type=Path, default=default, help=f"the leaderboard (default: {_FOLDER})"
    )


def _refuse(arguments: argparse.Namespace, what: str, *names: str) -> None:
    """Refuse flags that would be ignored.

    Raises:
        UserError: one of them is given.
    """
    for name in names:
        if getattr(arguments, name):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"leaderboard {what} has no use for {flag}; leave it out.")


def _render(arguments: argparse.Namespace) -> int:
    if arguments.hub_card is not None:
        return _card(arguments)
    from dihal_bench.core.files import write_text
    from dihal_bench.leaderboard import render

    folder, checks = arguments.dir or _FOLDER, arguments.check
    keep_going = arguments.keep_going
    with render.rendered(folder, beside=not checks, keep_going=keep_going, say=say) as rendered:
        board, fresh, out = rendered
        readme, filled = arguments.readme, ""
        if readme is not None:
            filled = render.fill_readme(readme, board)
        stale = readme is not None and readme.read_text(encoding="utf-8") != filled
        if checks:
            found = [folder / path for path in render.differences(fresh, folder)]
            return _differ([*found, *([readme] if stale else [])], out)
        changed = render.put(fresh, folder)
    if stale:
        write_text(readme, filled)
    shown = [counted(len(board.runs), "run"), counted(len(board.tables), "table")]
    left_out = f"; {counted(out, 'file')} left out" if out else ""
    print(f"{', '.join(shown)}; {counted(len(changed), 'file')} changed{left_out}")
    print(f"open {folder / 'index.html'}")
    return 0


def _differ(found: Sequence[Path], out: int) -> int:
    """Say which files differ, and how many were left out, of which nothing is known."""
    for path in found:
        print(f"{path} differs from what the records say")
    number = counted(len(found), "file differs", "files differ")
    if not out:
        print(number if found else "everything is what the records say")
    else:
        rest = number if found else "the rest is what the other records say"
        print(f"{counted(out, 'file')} left out; {rest}")
    return 1 if found or out else 0


def _card(arguments: argparse.Namespace) -> int:
    from dihal_bench.reporting.hub.card import write_card

    _refuse(arguments, "--hub-card", "dir", *_RENDERING)
    print(f"written: {write_card(arguments.hub_card)}")
    return 0


def _store(arguments: argparse.Namespace) -> Store:
    from dihal_bench.leaderboard.render import RECORDS
    from dihal_bench.leaderboard.store import Store

    return Store((arguments.dir or _FOLDER) / RECORDS)


def _add(arguments: argparse.Namespace) -> int:
    from dihal_bench.leaderboard.add import add as add_records

    _refuse(arguments, "add", *_RENDERING, "hub_card")
    add_records(_store(arguments), arguments.runs, say=print)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from dihal_bench.leaderboard.store import file_of, read_named
    from dihal_bench.leaderboard.verify import verify_all

    _refuse(arguments, "verify", *_RENDERING, "hub_card")
    if arguments.records:
        _refuse(arguments, "verify RECORD", "dir")
        paths = [file_of(named) for named in arguments.records]
        problems, rest = verify_all(paths, read_named)
    else:
        paths = _store(arguments).paths()
        problems, rest = verify_all(paths)
    for problem in problems:
        print(problem)
    print(f"{len(paths) - len(problems)} of {len(paths)} records say the same as their sums")
    if rest.unknown:
        print(f"unknown to this version, and not computed anew: {', '.join(sorted(rest.unknown))}")
    if rest.taken:
        print(
            f"{counted(rest.taken, 'score')} could not be computed anew: a record has no sums of "
            "other tasks, nor of bounds"
        )
    return 1 if problems else 0


def _template(arguments: argparse.Namespace) -> int:
    from dihal_bench.leaderboard.template import page

    _refuse(arguments, "submit-template", *_RENDERING, "hub_card", "dir")
    print(page(), end="")
    return 0
