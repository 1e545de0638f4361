"""``dihal-bench reproduce``: the next rows that the leaderboard lacks, within some minutes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import say

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs
    from dihal_bench.leaderboard.wanted import RunsMade, WantedRun

_WANTED = "wanted.toml"  # in the leaderboard's folder


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "reproduce", help="make the next rows that the leaderboard lacks, within some minutes"
    )
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, help="stop before so many are over (default: 10)")
    add("--device", default="cpu", help="torch device (default: cpu)")
    add("--dir", type=Path, default=Path("leaderboards"), help="the leaderboard")
    add("--wanted", type=Path, metavar="FILE", help=f"rows in order (default: DIR/{_WANTED})")
    add("--out", type=Path, default=Path("runs/reproduce"), help="where runs are made")
    add("--dry-run", action="store_true", help="list what is wanted, done and left, and its time")
    add("--json", action="store_true", help="print JSON, and nothing else, on standard output")
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    if not arguments.minutes > 0:
        raise UserError(f"--minutes {arguments.minutes:g}: give more than 0.")
    from dihal_bench.cli.common import print_json
    from dihal_bench.leaderboard.render import RECORDS
    from dihal_bench.leaderboard.store import Store
    from dihal_bench.leaderboard.wanted import estimates, make, read_wanted

    folder, out = arguments.dir, arguments.out

    def listed() -> list[WantedRun]:
        path = arguments.wanted or folder / _WANTED
        return read_wanted(path, Store(folder / RECORDS), out, device=arguments.device)

    wanted = listed()
    if arguments.dry_run:
        times = estimates([own for own in wanted if own.left], say)
        rows = [_row(own, times.get(own.run.folder)) for own in wanted]
        if arguments.json:
            print_json(rows)
        else:
            print(_table(rows))
        return 0
    outcome = make(wanted, shared=out / "shared", minutes=arguments.minutes, say=say)
    left = sum(own.left for own in listed())
    if arguments.json:
        made = [str(path) for path in outcome.made]
        print_json({"made": made, "stopped": outcome.stopped, "failed": outcome.failed})
    else:
        print(_summary(outcome, left))
    return 1 if outcome.failed else 0


def _row(own: WantedRun, seconds: float | None) -> dict[str, Any]:
    return {
        "row": own.run.title,
        "state": str(own.state),
        "seconds": None if seconds is None else round(seconds),
        "folder": str(own.run.folder),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    from dihal_bench.runs.cost_estimate import duration

    shown = [
        [row["row"], row["state"], "" if row["seconds"] is None else duration(row["seconds"])]
        for row in rows
    ]
    total = sum(row["seconds"] or 0 for row in rows)
    left = sum(row["state"] in ("begun", "wanted") for row in rows)
    return (
        f"{tabulate(shown, headers=['row', 'state', 'about'])}\n\n"
        f"{left} of {len(rows)} left, about {duration(total)} on this machine; a run that is begun "
        "takes less"
    )


def _summary(outcome: RunsMade, left: int) -> str:
    lines = [*outcome.failed]
    if outcome.stopped:
        lines.append(f"the time is over in: {outcome.stopped}; the same command continues it")
    lines.append(f"{len(outcome.made)} made, {left} left")
    if outcome.made:
        runs = shlex.join(map(str, outcome.made))
        lines.append(f"add them: dihal-bench leaderboard add {runs}")
    return "\n".join(lines)
