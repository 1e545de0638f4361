"""``dihal-bench run``: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.cli.common import (
    command_of,
    common_flags,
    config_of,
    gpu_of,
    print_json,
    print_plan,
    shard_flag,
)
from dihal_bench.cli.score import show_tasks, task_flags, tasks_of
from dihal_bench.core.progress import say

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs
    from dihal_bench.geometry.locate import Located


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "run", help="locate a layer, train the interface, score it against its controls"
    )
    parser.add_argument("--interface", help="registered interface (default: hidden)")
    parser.add_argument("--controls", help="comma-separated controls in the table")
    task_flags(parser, required=False)
    common_flags(parser)
    shard_flag(parser)
    parser.set_defaults(work=_work, parallel=True)


def _work(arguments: argparse.Namespace) -> int:
    config, gpu = config_of(arguments), gpu_of(arguments)
    from dihal_bench.reporting.report import plan, show_located, show_record
    from dihal_bench.runs.execute import run
    from dihal_bench.runs.finished import FinishedRun
    from dihal_bench.runs.folder import run_folder
    from dihal_bench.runs.inputs import Inputs
    from dihal_bench.runs.rescore import rescore

    tasks = tasks_of(arguments) if arguments.tasks is not None else []
    if arguments.dry_run:
        return print_plan(plan(config, gpu=gpu), as_json=arguments.json)

    def show(located: Located) -> None:
        if not arguments.json:
            selected = located.select(config.layer, above=config.from_layer)
            print(show_located(located, selected), flush=True)

    folder = run_folder(config, arguments.out)
    inputs = Inputs(config, say, shard_teacher=arguments.shard_teacher)
    if any(task.generates for task in tasks):
        inputs.backbone.require_generation()
    command = command_of(arguments)
    record = run(config, out=folder, inputs=inputs, command=command, say=say, show=show)
    shown = [show_record(record, folder)]
    if tasks:
        trained = FinishedRun(folder, say=say)
        record = rescore(trained, tasks, say=say)
        shown.append(show_tasks(record, trained, tasks))
    if arguments.json:
        print_json(record.data)
    else:
        print("\n\n".join(shown))
    return 0
