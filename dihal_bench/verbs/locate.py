"""``dihal-bench locate``: the layers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.progress import say
from dihal_bench.verbs.common import common_flags, config_of, print_json, print_plan

if TYPE_CHECKING:
    import argparse

    from dihal_bench.verbs.common import Verbs

GRID = "score under 1,296 definitions instead of one: table, grid.json, figure (minutes to hours)"


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("locate", help="score all layers by geometry; table and figure")
    common_flags(parser)
    parser.add_argument("--grid", action="store_true", help=GRID)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    from dihal_bench.files import write_json
    from dihal_bench.folder import claimed, run_folder
    from dihal_bench.geometry.figure import draw
    from dihal_bench.geometry.grid import check_resamples, describe_grid
    from dihal_bench.geometry.grid_figure import draw_grid
    from dihal_bench.geometry.grid_table import show_grid
    from dihal_bench.job import Job
    from dihal_bench.report import plan, show_located

    if arguments.grid:
        check_resamples(config.locate.sample, config.locate.stability_sample)
    if arguments.dry_run:
        planned = plan(config, train=False)
        if arguments.grid:
            planned["summary"]["grid"] = describe_grid(config.locate)
        return print_plan(planned, as_json=arguments.json)
    folder = run_folder(config, arguments.out, name="locate")
    job = Job(config, folder, say)
    with claimed(folder, config):
        job.check_span()
        job.inputs.check(folder)
        found = job.located.to_dict()
        write_json(folder / "locate.json", found)
        figures = draw(job.located, folder / "locate")
        if not arguments.json:
            selected = job.located.select(config.layer, above=config.from_layer)
            print(show_located(job.located, selected), flush=True)
        if arguments.grid:
            grid = job.grid()
            found |= {"grid": grid.to_dict()}
            write_json(folder / "grid.json", found["grid"])
            figures += draw_grid(grid, folder / "grid")
            if not arguments.json:
                print(show_grid(grid))
    if arguments.json:
        print_json(found)
    else:
        print("figure: " + " and ".join(str(path) for path in figures))
    return 0
