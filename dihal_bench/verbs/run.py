"""``dihal-bench run``: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.progress import say
from dihal_bench.verbs.common import (
    command_of,
    common_flags,
    config_of,
    print_json,
    print_plan,
)

if TYPE_CHECKING:
    import argparse

    from dihal_bench.geometry.locate import Located
    from dihal_bench.verbs.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "run", help="locate a layer, train the interface, score it against its controls"
    )
    parser.add_argument("--interface", help="registered interface (default: hidden)")
    parser.add_argument("--controls", help="comma-separated controls in the table")
    common_flags(parser)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    from dihal_bench.folder import run_folder
    from dihal_bench.job import run
    from dihal_bench.report import plan, show_located, show_record

    if arguments.dry_run:
        return print_plan(plan(config), as_json=arguments.json)

    def show(located: Located) -> None:
        if not arguments.json:
            selected = located.select(config.layer, above=config.from_layer)
            print(show_located(located, selected), flush=True)

    folder = run_folder(config, arguments.out)
    record = run(config, out=folder, command=command_of(arguments), say=say, show=show)
    if arguments.json:
        print_json(record.data)
    else:
        print(show_record(record, folder))
    return 0
