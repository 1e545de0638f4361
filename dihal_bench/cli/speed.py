"""``dihal-bench speed``: how fast the parts of a run are here, and beside what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.cli.common import common_flags, config_of, print_json
from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "speed", help="time the parts of a run here, against plain transformers"
    )
    parser.add_argument("--interface", help="registered interface (default: hidden)")
    parser.add_argument("--controls", help="comma-separated controls")
    common_flags(parser)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    for flag, value in (("--dry-run", arguments.dry_run), ("--for", arguments.gpu)):
        if value:
            raise UserError(f"{flag} is of a plan, and speed only measures; use it with run.")
    if arguments.out is not None:
        raise UserError("--out is where a run is kept, and speed keeps nothing; leave it out.")
    config = config_of(arguments)
    from dihal_bench.reporting.speed_table import show_speed
    from dihal_bench.runs.speed import speed

    measured = speed(config)
    if arguments.json:
        print_json(measured.to_dict())
    else:
        print(show_speed(measured))
    return 0
