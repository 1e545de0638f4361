"""``dihal-bench locate``: the layers alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.cli.common import (
    common_flags,
    config_of,
    gpu_of,
    print_json,
    print_plan,
    shard_flag,
)
from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import say

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs
    from dihal_bench.geometry.cache import CacheConfig
    from dihal_bench.runs.context import RunContext
    from dihal_bench.studies.protocol_grid.grid import Grid

GRID = "score under 1,296 definitions instead of one: table, grid.json, figure (minutes to hours)"


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("locate", help="score all layers by geometry; table and figure")
    common_flags(parser)
    shard_flag(parser)
    parser.add_argument("--grid", action="store_true", help=GRID)
    parser.add_argument(
        "--cache-activations",
        type=Path,
        metavar="DIR",
        help="keep the layers' states there, and read them instead of running the backbone again",
    )
    parser.add_argument(
        "--cache-layers",
        metavar="A,B,...",
        help="which layers are kept (default: the candidates); others are computed each time",
    )
    parser.set_defaults(work=_work, parallel=True)


def _work(arguments: argparse.Namespace) -> int:
    config, gpu = config_of(arguments), gpu_of(arguments)
    from dihal_bench.core.files import write_json
    from dihal_bench.reporting.geometry_figures import draw_grid, draw_layers
    from dihal_bench.reporting.grid_table import show_grid
    from dihal_bench.reporting.report import plan, show_located
    from dihal_bench.runs.context import RunContext
    from dihal_bench.runs.folder import claimed, run_folder
    from dihal_bench.runs.inputs import Inputs
    from dihal_bench.studies.protocol_grid.grid import check_grid
    from dihal_bench.studies.protocol_grid.of_run import grid_of_run

    cache = _cache(arguments)
    _check_alone(arguments)
    if arguments.grid:
        check_grid(config.locate)
    if arguments.dry_run:
        planned = plan(config, train=False, cache=cache, grid=arguments.grid, gpu=gpu)
        return print_plan(planned, as_json=arguments.json)
    folder = run_folder(config, arguments.out, name="locate")
    inputs = Inputs(config, say, shard_teacher=arguments.shard_teacher)
    job = RunContext(config, folder, say, inputs=inputs, cache=cache)
    with claimed(folder, config):
        job.check_span()
        job.inputs.check(folder)
        if arguments.grid:
            text = job.inputs.training_text
            windows = min(len(text), config.locate.windows)
            check_grid(config.locate, windows * min(config.locate.per_window, text.window))
        found = job.located.to_dict()
        write_json(folder / "locate.json", found)
        figures = draw_layers(job.located, folder / "locate")
        if not arguments.json:
            selected = job.located.select(config.layer, above=config.from_layer)
            print(show_located(job.located, selected), flush=True)
        if arguments.grid:
            grid = grid_of_run(job)
            found |= {"grid": _result(grid, job)}
            write_json(folder / "grid.json", found["grid"])
            figures += draw_grid(grid, folder / "grid")
            if not arguments.json:
                print(show_grid(grid))
    if arguments.json:
        print_json(found)
    else:
        print("figure: " + " and ".join(str(path) for path in figures))
    return 0


def _result(grid: Grid, job: RunContext) -> dict[str, Any]:
    """Return what grid.json holds, sealed."""
    from dihal_bench.core import environment
    from dihal_bench.core.checksum import sealed
    from dihal_bench.results.migrations import SCHEMA

    config, inputs = job.config, job.inputs
    about = environment.describe(device=config.device, seed=config.seed)
    name = Path(config.backbone).name
    rests_on = {
        "records": [],
        "backbones": [inputs.backbone.info.fingerprint],
        "corpora": [inputs.corpus.fingerprint],
        "devices": [about["device"]],
        "threads": [about["threads"]],
    }
    origin = f"dihal-bench {about['versions']['dihal-bench']} {about['git']}"
    own = {
        "schema": SCHEMA,
        "run": f"{name}-grid",
        "backbone": name,
        "rests_on": rests_on,
        "origins": [origin],
    }
    return sealed({**grid.to_dict(), **own})


def _check_alone(arguments: argparse.Namespace) -> None:
    """Refuse what one process has to do alone."""
    given = {"--grid": arguments.grid, "--cache-activations": arguments.cache_activations}
    for flag, value in given.items():
        if value and distributed.size() > 1:
            raise UserError(f"{flag} is the work of one process; give it without torchrun.")


def _cache(arguments: argparse.Namespace) -> CacheConfig | None:
    """What the flags of the cache mean; None without them."""
    from dihal_bench.geometry.cache import CacheConfig

    folder, layers = arguments.cache_activations, arguments.cache_layers
    if folder is None:
        if layers is not None:
            raise UserError(
                f"--cache-layers {layers} keeps nothing without --cache-activations DIR."
            )
        return None
    if layers is None:
        return CacheConfig(folder=folder)
    try:
        return CacheConfig(folder=folder, layers=tuple(int(part) for part in layers.split(",")))
    except ValueError:
        raise UserError(
            f"--cache-layers {layers} is no list of layers; give numbers such as 0,3,7."
        ) from None
