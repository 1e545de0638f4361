"""``dihal-bench leaderboard``: records in, tables, figures and pages out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.progress import say

if TYPE_CHECKING:
    import argparse

    from dihal_bench.verbs.common import Verbs

_FOLDER = Path("leaderboards")


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "leaderboard", help="render tables, figures and pages from records; add records"
    )
    _folder(parser)
    parser.add_argument("--keep-going", action="store_true", help="leave out what cannot be read")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if files differ"
    )
    parser.add_argument("--readme", type=Path, help="a README whose headline table is rendered too")
    parser.add_argument("--hub-card", type=Path, metavar="RUN", help="write a run's model card")
    parser.set_defaults(work=_render)
    actions = parser.add_subparsers(metavar="ACTION")
    own = actions.add_parser("add", help="copy the records of finished runs")
    own.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    _folder(own)
    own.set_defaults(work=_add)
    own = actions.add_parser("verify", help="hold records against themselves: what CI asks of rows")
    own.add_argument("records", nargs="*", type=Path, metavar="RECORD", help="default: all")
    _folder(own)
    own.set_defaults(work=_verify)
    own = actions.add_parser("submit-template", help="how somebody else adds a row")
    own.set_defaults(work=_template)


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir", type=Path, default=_FOLDER, help="the leaderboard (default: leaderboards)"
    )


def _render(arguments: argparse.Namespace) -> int:
    if arguments.hub_card is not None:
        from dihal_bench.publishing.card import write_card

        print(f"written: {write_card(arguments.hub_card)}")
        return 0
    from dihal_bench.files import write_text
    from dihal_bench.leaderboard import render

    board = render.read(arguments.dir, keep_going=arguments.keep_going, say=say)
    readme, filled = arguments.readme, ""
    if readme is not None:
        filled = render.fill_readme(readme, board)
    stale = readme is not None and readme.read_text(encoding="utf-8") != filled
    if arguments.check:
        found = [arguments.dir / path for path in render.check(board, arguments.dir)]
        found += [readme] if stale else []
        for path in found:
            print(f"{path} differs from what the records say")
        print(f"{len(found)} files differ" if found else "everything is what the records say")
        return 1 if found else 0
    changed = render.write(board, arguments.dir)
    if stale:
        write_text(readme, filled)
    count = len(board["runs"])
    tables = len(board["tables"])
    print(f"{count:,} runs, {tables:,} tables; {len(changed):,} files changed")
    print(f"open {arguments.dir / 'index.html'}")
    return 0


def _add(arguments: argparse.Namespace) -> int:
    from dihal_bench.leaderboard.add import add as add_records
    from dihal_bench.leaderboard.render import RECORDS
    from dihal_bench.leaderboard.store import Store

    add_records(Store(arguments.dir / RECORDS), arguments.runs, say=print)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from dihal_bench.leaderboard.render import RECORDS
    from dihal_bench.leaderboard.store import Store
    from dihal_bench.leaderboard.verify import verify_all

    paths = arguments.records or Store(arguments.dir / RECORDS).paths()
    problems = verify_all(paths)
    for problem in problems:
        print(problem)
    print(f"{len(paths) - len(problems)} of {len(paths)} records say the same as their sums")
    return 1 if problems else 0


def _template(arguments: argparse.Namespace) -> int:
    del arguments
    from dihal_bench.leaderboard.template import page

    print(page(), end="")
    return 0
