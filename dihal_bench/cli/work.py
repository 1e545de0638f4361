"""``dihal-bench work``: one job, as a machine of a cluster does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.core.progress import say

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "work", help="do one job of a comparison or sweep (what their executors send out)"
    )
    parser.add_argument("file", type=Path, metavar="JOB.json", help="written by the executor")
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.runs.work_unit import perform_file

    perform_file(arguments.file, say)
    return 0
