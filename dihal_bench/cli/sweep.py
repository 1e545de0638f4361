"""``dihal-bench sweep``: one run per layer or per anything, and what predicts the best."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.cli.common import (
    command_of,
    common_flags,
    config_of,
    gpu_of,
    listed,
    print_json,
    print_runs,
    seeds_of,
)
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import say
from dihal_bench.runs.executor import execution_flags, executor_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from dihal_bench.cli.common import Verbs
    from dihal_bench.config.schema import RunConfig
    from dihal_bench.runs.accelerators import Accelerator
    from dihal_bench.runs.work_unit import WorkUnit
    from dihal_bench.studies.sweep.plan import Axis, SweepCandidate
    from dihal_bench.studies.sweep.sweep import Sweep

_LAYERS = "all (default), early, middle, late, or numbers and ranges such as 1,2,5-7"
_TRANSFORM = "changes of coordinates within layers, as in rotate,scale,spectrum:0,0.5,1"
_BACKBONES = "several backbones, comma-separated, or a folder of them; tested over all"
_GRID = "rank every definition of the protocol grid too (see locate --grid)"
_PASS = "layers whose bridges learn from one teacher pass (default: 1)"  # noqa: S105 - no password


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "sweep", help="one run per layer (or per anything); who predicts the best one?"
    )
    parser.add_argument("--interface", help="registered interface (default: hidden)")
    parser.add_argument("--layers", help=_LAYERS)
    parser.add_argument("--span", type=int, metavar="G", help="replace blocks (l - G, l] for all l")
    parser.add_argument("--over", metavar="KEY=A,B", help="sweep any configuration key instead")
    parser.add_argument("--transform", metavar="LIST", help=_TRANSFORM)
    parser.add_argument("--backbones", metavar="LIST", help=_BACKBONES)
    parser.add_argument("--grid", action="store_true", help=_GRID)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated (default: 0,1,2)")
    parser.add_argument("--layers-per-pass", type=int, default=1, metavar="G", help=_PASS)
    execution_flags(parser)
    common_flags(parser)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    _check(arguments)
    from dihal_bench.reporting.sweep_table import report
    from dihal_bench.runs.folder import claimed
    from dihal_bench.studies.study import work_units
    from dihal_bench.studies.sweep.replicate import check_distinct
    from dihal_bench.studies.sweep.sweep import check_earlier, check_together

    seeds, command, gpu = seeds_of(arguments.seeds), command_of(arguments), gpu_of(arguments)
    executor = executor_of(arguments)
    if not arguments.dry_run:
        executor.check()
    sweeps = [_prepared(arguments, name, seeds) for name in _backbones(arguments)]
    check_distinct(sweeps)
    with ExitStack() as claims:
        for sweep in sweeps:
            dry = arguments.dry_run
            claims.enter_context(claimed(sweep.folder, sweep.job.config, dry=dry))
            check_earlier(sweep)
        check_together(sweeps, _root(arguments, sweeps))
        per_pass = arguments.layers_per_pass
        errands = [
            work_units(s.entries, shared=s.job.shared, command=command, per_pass=per_pass)
            for s in sweeps
        ]
        if arguments.dry_run:
            return _print_runs(sweeps, errands, gpu, as_json=arguments.json)
        for sweep in sweeps:
            sweep.job.inputs.check(sweep.folder)
        every = [errand for own in errands for errand in own]
        executor.work_off(every, sweeps[0].folder, sweeps[0].job.inputs)
        results = report(sweeps, _root(arguments, sweeps))
    if arguments.json:
        print_json(results.plain)
    else:
        print(results.text)
        print("\nfiles: " + ", ".join(str(path) for path in results.files))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.seed is not None:
        raise UserError(f"--seed {arguments.seed}: sweep takes --seeds, three or more.")
    if arguments.layers_per_pass < 1:
        raise UserError(f"--layers-per-pass {arguments.layers_per_pass} must be 1 or more.")
    axes = {"--span": arguments.span, "--over": arguments.over, "--transform": arguments.transform}
    given = [name for name, value in axes.items() if value is not None]
    if arguments.grid and (arguments.over is not None or arguments.transform is not None):
        raise UserError(f"--grid ranks layers; give it without {given[0]}.")
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} are different sweeps; give one of them.")
    if arguments.over is not None and arguments.layers is not None:
        raise UserError("--over sweeps one key at one layer; give --layer instead of --layers.")
    if arguments.over is None and arguments.layer is not None:
        raise UserError(
            f"--layer {arguments.layer}: sweep takes --layers, as in --layers 1,{arguments.layer}."
        )
    if arguments.backbone is not None and arguments.backbones is not None:
        raise UserError("--backbone and --backbones exclude each other; give one of them.")


def _backbones(arguments: argparse.Namespace) -> list[str | None]:
    """Return the backbones that are named; a folder of model folders stands for all of them."""
    if arguments.backbones is None:
        return [arguments.backbone]
    found: list[str | None] = []
    for name in listed(arguments.backbones):
        inside = sorted(path.parent for path in Path(name).glob("*/config.json"))
        own = (Path(name) / "config.json").exists()
        found += [str(path) for path in inside] if inside and not own else [name]
    if not found:
        raise UserError("--backbones names none; give folders or hub ids, comma-separated.")
    names = Counter(Path(str(name)).name for name in found)
    if (most := names.most_common(1)[0])[1] > 1:
        raise UserError(
            f"--backbones: {most[1]} of them are called {most[0]}, so their results could not be "
            "told apart; rename their folders."
        )
    return found


def _prepared(arguments: argparse.Namespace, backbone: str | None, seeds: list[int]) -> Sweep:
    """Look everything up, choose the candidates and lay the runs out."""
    from dihal_bench.core.registry import INTERFACES
    from dihal_bench.runs.context import RunContext
    from dihal_bench.runs.cost_estimate import checked
    from dihal_bench.runs.folder import run_folder
    from dihal_bench.studies.protocol_grid.grid import check_grid
    from dihal_bench.studies.study import plan
    from dihal_bench.studies.sweep.plan import SWEEPS
    from dihal_bench.studies.sweep.sweep import Sweep

    always = [] if backbone is None else [f"backbone={backbone}"]
    swept = listed((arguments.over or "").partition("=")[2])
    if arguments.transform is not None:
        always.append("bridge.residual=none")

    def configure(sets: list[str]) -> RunConfig:
        return config_of(arguments, sets=[*always, *sets], defaults=SWEEPS, others=swept)

    base = configure([f"seed={seeds[0]}"])
    if arguments.over is None and INTERFACES.get(base.interface).bears_tokens:
        raise UserError(
            f"--interface {base.interface} always enters at the last layer; sweep another of its "
            "settings, as in --over from_layer=0,2,4."
        )
    name = Path(base.backbone).name
    out = arguments.out
    if out is not None and arguments.backbones is not None:
        out = out / name
    folder = run_folder(base, out, name="sweep")
    job = RunContext(base, folder, say, shared=folder / "shared")
    axis = _axis(arguments, job)
    for candidate in axis.candidates:  # before anything is located
        checked(configure(list(candidate.settings)), job)
    if arguments.over is not None and len(set(axis.candidates)) < max(2, len(axis.candidates)):
        raise UserError(f"--over {arguments.over}: give two or more different values, as KEY=A,B.")
    if arguments.grid:
        check_grid(base.locate)
    chosen = _with_layer(arguments, job, configure)

    def of(own: SweepCandidate, seed: int) -> RunConfig:
        return chosen([*own.settings, f"seed={seed}"])

    entries = plan(axis.candidates, seeds, of, folder)
    return Sweep(name=name, folder=folder, axis=axis, entries=entries, job=job, grid=arguments.grid)


def _with_layer(
    arguments: argparse.Namespace, job: Any, configure: Callable[[list[str]], RunConfig]
) -> Callable[[list[str]], RunConfig]:
    """Choose the layer once for all runs and seeds, where it is not what is swept."""
    if arguments.over is None or not job.locates:
        return configure
    layer = job.entered(job.config.interface, dry=arguments.dry_run)
    return configure if layer is None else lambda sets: configure([f"layer={layer}", *sets])


def _axis(arguments: argparse.Namespace, job: Any) -> Axis:
    from dihal_bench.studies.sweep.plan import (
        chosen_layers,
        chosen_transforms,
        layer_axis,
        setting_axis,
        transform_axis,
    )

    if arguments.over is not None:
        key, equals, values = arguments.over.partition("=")
        if not equals:
            raise UserError(f"--over {arguments.over}: write it as KEY=A,B.")
        return setting_axis(key.strip(), listed(values))
    start, blocks, span = job.config.from_layer, job.inputs.backbone.blocks, arguments.span
    if span is not None and (arguments.from_layer is not None or start):
        raise UserError(
            f"--from {start} and --span {span} exclude each other: a span begins so many blocks "
            "below each layer; give one of them."
        )
    lowest = start if span is None else span - 1
    layers = chosen_layers("all" if arguments.layers is None else arguments.layers, blocks)
    if arguments.layers is None:  # those that a span can end at
        layers = [layer for layer in layers if layer > lowest]
    if not layers:
        given = f"--from {start}" if span is None else f"--span {span}"
        raise UserError(f"{given} leaves no layer of 1 to {blocks - 1}; give a smaller number.")
    if arguments.transform is not None:
        return transform_axis(layers, chosen_transforms(arguments.transform))
    return layer_axis(layers, start=start, span=span)


def _root(arguments: argparse.Namespace, sweeps: list[Sweep]) -> Path:
    """Return the folder of what is said about all backbones together."""
    if len(sweeps) == 1:
        return sweeps[0].folder
    return Path(arguments.out) if arguments.out else sweeps[0].folder.parent


def _print_runs(
    sweeps: list[Sweep],
    errands: list[list[WorkUnit]],
    gpu: Accelerator | None,
    *,
    as_json: bool,
) -> int:
    from dihal_bench.reporting.report import plan_runs
    from dihal_bench.runs.cost_estimate import CostEstimate

    rows = [
        {"backbone": sweep.name, "candidate": entry.candidate.label, **entry.row()}
        for sweep in sweeps
        for entry in sweep.entries
    ]
    jobs = [sweep.job for sweep in sweeps]
    ranking = sum((sweep.ranking_cost for sweep in sweeps), CostEstimate())
    summary = plan_runs(list(zip(jobs, errands, strict=True)), ranking, gpu)
    return print_runs(rows, summary, as_json=as_json)
