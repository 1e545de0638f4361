"""``dihal-bench locate``: the layers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.progress import say
from dihal_bench.verbs.common import (
    common_flags,
    config_of,
    print_json,
    print_plan,
    shard_flag,
)

if TYPE_CHECKING:
    import argparse

    from dihal_bench.verbs.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("locate", help="score all layers by geometry; table and figure")
    common_flags(parser)
    shard_flag(parser)
    parser.set_defaults(work=_work, parallel=True)


def _work(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    from dihal_bench.files import write_json
    from dihal_bench.folder import claimed, run_folder
    from dihal_bench.geometry.figure import draw
    from dihal_bench.inputs import Inputs
    from dihal_bench.job import Job
    from dihal_bench.report import plan, show_located

    if arguments.dry_run:
        return print_plan(plan(config, train=False), as_json=arguments.json)
    folder = run_folder(config, arguments.out, name="locate")
    inputs = Inputs(config, say, shard_teacher=arguments.shard_teacher)
    job = Job(config, folder, say, inputs=inputs)
    with claimed(folder, config):
        job.check_span()
        job.inputs.check(folder)
        located = job.located
        write_json(folder / "locate.json", located.to_dict())
        figures = draw(located, folder / "locate")
    if arguments.json:
        print_json(located.to_dict())
    else:
        selected = located.select(config.layer, above=config.from_layer)
        print(show_located(located, selected))
        print("figure: " + " and ".join(str(path) for path in figures))
    return 0
