"""``dihal-bench compare``: all interfaces under one budget."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

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
    from collections.abc import Iterator

    from dihal_bench.cli.common import Verbs
    from dihal_bench.results.record import Record
    from dihal_bench.runs.accelerators import Accelerator
    from dihal_bench.runs.context import RunContext
    from dihal_bench.runs.work_unit import WorkUnit
    from dihal_bench.studies.comparison.plan import Contender
    from dihal_bench.studies.study import Entry


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "compare", help="train and score all interfaces and controls under one budget"
    )
    parser.add_argument("--interfaces", default="all", help="comma-separated (default: all)")
    parser.add_argument("--seeds", default="0", help="comma-separated (default: 0)")
    parser.add_argument("--denoisers", help="comma-separated (default: that of --denoiser)")
    parser.add_argument("--blocks", help="parts of the table, comma-separated (default: all)")
    common_flags(parser)
    execution_flags(parser)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    if arguments.seed is not None:
        raise UserError(f"--seed {arguments.seed}: compare takes --seeds, one or more.")
    executor = executor_of(arguments)
    from dihal_bench.reporting.comparison_table import Tables, show, write
    from dihal_bench.runs.folder import claimed, run_folder
    from dihal_bench.studies.comparison.plan import BLOCKS, planned
    from dihal_bench.studies.comparison.pool import SeedPool
    from dihal_bench.studies.study import work_units

    seeds, command = seeds_of(arguments.seeds), command_of(arguments)
    blocks = list(dict.fromkeys(listed(arguments.blocks))) or [
        key for key, block in BLOCKS.items() if arguments.regime in (None, block.regime)
    ]
    regimes = {BLOCKS[key].regime for key in blocks if key in BLOCKS}
    arguments.regime = "sequence" if "sequence" in regimes else "causal"
    denoisers = list(dict.fromkeys(listed(arguments.denoisers)))
    gpu = gpu_of(arguments)
    configs = [config_of(arguments, name, others=denoisers) for name in denoisers or (None,)]
    config = configs[0]
    bases = {
        own.denoiser.name: replace(own, regime="causal", block=0, interface="hidden", seed=seeds[0])
        for own in configs
    }
    base = bases[config.denoiser.name]
    if not arguments.dry_run:
        executor.check()
    out = run_folder(base, arguments.out, name="compare")
    with claimed(out, base, dry=arguments.dry_run):
        entries, job = planned(
            bases,
            out,
            interfaces=listed(arguments.interfaces),
            seeds=seeds,
            blocks=blocks,
            size=config.block,
            dry=arguments.dry_run,
            say=say,
        )
        errands = work_units(entries, shared=out / "shared", command=command)
        if arguments.dry_run:
            return _print_runs(entries, errands, job, gpu, as_json=arguments.json)
        job.inputs.check(out)
        executor.work_off(errands, out, job.inputs)
        pools = {key: SeedPool.gather(_named(entries, key)) for key in blocks}
        resamples = config.score.resamples
        tables = {key: Tables.of(pool, key, resamples=resamples) for key, pool in pools.items()}
        files = write(tables, out)
    if arguments.json:
        print_json({key: own.to_dict() for key, own in tables.items()})
    else:
        print(show(tables))
        print("tables: " + ", ".join(str(path) for path in files))
    return 0


def _named(entries: list[Entry[Contender]], block: str) -> Iterator[tuple[str, Record]]:
    from dihal_bench.results.record import Record

    own = [entry for entry in entries if entry.candidate.block == block]
    return ((e.candidate.label, Record.read(e.run.folder / "record.json")) for e in own)


def _print_runs(
    entries: list[Entry[Contender]],
    errands: list[WorkUnit],
    job: RunContext,
    gpu: Accelerator | None,
    *,
    as_json: bool,
) -> int:
    from dihal_bench.reporting.report import plan_runs
    from dihal_bench.runs.cost_estimate import CostEstimate

    rows = [
        {"block": e.candidate.block, "interface": e.candidate.label, **e.row()} for e in entries
    ]
    summary = plan_runs([(job, errands)], CostEstimate(), gpu)
    return print_runs(rows, summary, as_json=as_json)
