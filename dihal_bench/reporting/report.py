"""What a person sees of a run: the plan, the layer table, the score table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.geometry.cache import size
from dihal_bench.reporting.run_table import LEGEND, run_table
from dihal_bench.reporting.writers import text
from dihal_bench.results.metrics import DIFFUSION_GAIN, NLL, base_name
from dihal_bench.results.table import Table, differences, numbers, words
from dihal_bench.runs.accelerators import LAUNCH, STREAMED, USED
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.cost_estimate import (
    CostEstimate,
    Rater,
    checked,
    cost_of,
    duration,
    jobs_of_errands,
    locating,
    reading,
    trained_tokens,
)
from dihal_bench.runs.timing import Work
from dihal_bench.studies.protocol_grid.grid import describe_grid
from dihal_bench.studies.protocol_grid.of_run import grid_seconds
from dihal_bench.studies.ranking.agreement import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.geometry.cache import CacheConfig
    from dihal_bench.geometry.locate import Located
    from dihal_bench.results.record import Record
    from dihal_bench.runs.accelerators import Accelerator
    from dihal_bench.runs.work_unit import WorkUnit


def show_located(located: Located, selected: int) -> str:
    """Return the table of layers with proxies and scores; a star marks the selected one."""
    paper, matched = located.cells["paper"]["layers"], located.cells["matched"]["layers"]
    crossed = {row["layer"]: row["stiffness_cross"] for row in located.cross}
    proxy = partial(numbers, type="significant", digits=3)
    table = Table.of(
        zip(paper, matched, located.log_norm, strict=True),
        (words("layer"), lambda row: f"{row[0]['layer']}{' *' * (row[0]['layer'] == selected)}"),
        (proxy("curvature"), lambda row: row[0]["curvature"]["value"]),
        (proxy("stiffness"), lambda row: row[0]["stiffness"]["value"]),
        (proxy("cross-fitted"), lambda row: crossed.get(row[0]["layer"])),
        (proxy("eff. rank"), lambda row: row[0]["effective_rank"]["value"]),
        (differences("score [95 %]"), lambda row: Interval(**row[0]["score"]).cell),
        (differences("matched score [95 %]"), lambda row: Interval(**row[1]["score"]).cell),
        (numbers("log norm", digits=2), lambda row: row[2]),
    )
    return "\n".join([text(table), "*: the layer that is selected", *located.remarks(), ""])


def show_record(record: Record, folder: Path) -> str:
    """Return the score table of a run and where its files lie."""
    data = record.data
    order = ["teacher", data["interface"]["name"], *data["interface"]["controls"]]
    notes = [_what(data), *_spent(data), _scored(record), *LEGEND, *_gain(record), *_bridge(record)]
    places = [f"record: {folder / 'record.json'}", f"weights: {folder / 'weights'}"]
    return "\n".join([text(run_table(record.own_scores, order)), *notes, *places])


def _what(data: dict[str, Any]) -> str:
    interface, cost = data["interface"], data["costs"][data["interface"]["name"]]
    budget = data["budget"]
    within = "" if budget["within"] else " (OUTSIDE its budget: not for matched tables)"
    return (
        f"{interface['name']} at layer {data['layer']} ({data['layer_policy']}): replaced "
        f"{interface['replaced']} of {data['backbone']['blocks']} blocks by "
        f"{cost['ratio']:.2f} times their FLOPs at S={cost['steps']}; "
        f"{cost['trunk_parameters']:,} trunk, {cost['recovery_parameters']:,} recovery, "
        f"{cost['other_parameters']:,} other parameters; budget {budget['name']}, matched by "
        f"{budget['matched']}{within}"
    )


def _spent(data: dict[str, Any]) -> list[str]:
    return [
        f"{phase}: {own['tokens']:,} tokens, {own['steps']:,} steps, {own['flops']:.3g} FLOPs, "
        f"{duration(own['seconds'])}"
        for phase, own in data["spent"][data["interface"]["name"]].items()
    ]


def _scored(record: Record) -> str:
    teacher = (score for score in record.own_scores if score.subject == "teacher")
    nll = next(score for score in teacher if base_name(score.metric) == NLL.key)
    where = "tokens" if nll.metric == NLL.key else "first tokens of blocks"
    return (
        f"scored {nll.n:,} {where} of {nll.task} in {nll.details['documents']} documents; "
        "intervals: 95 %, bootstrap over documents; S: network evaluations per chain"
    )


def _gain(record: Record) -> list[str]:
    gains = [s for s in record.own_scores if base_name(s.metric) == DIFFUSION_GAIN.key]
    best = ", ".join(sorted({s.details["control"] for s in gains}))
    said = f"diffusion gain: NLL of the best control without diffusion ({best}) - the row's"
    return [said] if gains else []


def _bridge(record: Record) -> list[str]:
    bridge, name = record.data["bridge"], record.data["interface"]["name"]
    own, half = bridge["oracle"], bridge["oracle"]["sigma_half"]
    samples = any(s.subject == name and s.kind == "ensemble" for s in record.own_scores)
    sampled = f", {bridge['fvu_sample']:.4f} at S={bridge['steps']}" if samples else ""
    return [
        f"fvu: {bridge['fvu_mmse']:.4f} one step{sampled}; leak gate: passed by every row",
        f"recovery from the true signal: agreement {own['agreement']:.4f}, KL {own['kl']:.2g}; "
        f"agreement halves {'at no noise tried' if half is None else f'at sigma {half:.2f}'}",
        *(f"denoiser: {what} {value:.4f}" for what, value in bridge["denoiser"].items()),
    ]


def plan(
    config: RunConfig,
    *,
    train: bool = True,
    cache: CacheConfig | None = None,
    grid: bool = False,
    gpu: Accelerator | None = None,
) -> dict[str, Any]:
    """Return the resolved configuration and what it will cost, without training anything.

    Args:
        config: what would run.
        train: whether anything would be trained and scored; False: located only.
        cache: where activations would be kept.
        grid: whether the layers would be scored under every protocol as well.
        gpu: whose time is estimated too, by its data sheet.

    Raises:
        UserError: the configuration cannot be run.
    """
    job = checked(config, RunContext(config, folder=Path()))
    backbone, block = job.inputs.backbone, job.config.block_size
    rater = Rater([job], counts=gpu is not None)
    cost = cost_of([[job]], rater) if train else locating(job, counts=gpu is not None)
    layer = f"{config.layer} (of 1..{backbone.blocks - 1})" if job.locates else f"{backbone.blocks}"
    summary = {
        "interface": f"{config.interface} with controls {', '.join(job.names[1:]) or 'none'}",
        "regime": f"{config.regime}, blocks of {block}" if block else config.regime,
        "backbone": f"{config.backbone}: {backbone.info.architecture}, {backbone.blocks} blocks, "
        f"{backbone.info.parameters:,} parameters"
        + (f" ({backbone.info.source.title})" if backbone.info.source else ""),
        "layer": f"{layer}, conditioned on layer {config.from_layer}",
        "corpus": config.corpus,
        "training tokens": f"{_trained(job) if train else 'none'} in windows of "
        f"{config.text.window}",
        "trunk parameters": f"{job.trunk_parameters() if train else 0:,}",
        "FLOPs": f"about {cost.flops:.2g}",
    }
    if grid:
        seconds = grid_seconds(config.locate, backbone.blocks - 1, backbone.hidden_size)
        again = reading(job).work  # the backbone's pass
        parts = {"grid": again + Work(seconds=seconds)}
        cost += CostEstimate(flops=again.flops, parts=parts, proxies=seconds)
        summary["grid"] = f"{describe_grid(config.locate)}: at most about {duration(seconds)}"
    summary |= _costs(cost, rater, gpu)
    if cache is not None:
        summary["activations"] = _kept(job, cache)
    return {"config": config.to_dict(), "summary": summary, "cost": plain_cost(cost, gpu)}


def plan_runs(
    errands: Sequence[tuple[RunContext, Sequence[WorkUnit]]],
    extra: CostEstimate,
    gpu: Accelerator | None = None,
) -> dict[str, str]:
    """Return what the runs of a sweep or a comparison will cost, and what of it is left.

    Args:
        errands: the jobs beside which runs are planned, one per backbone, each with these.
        extra: what is done besides them.
        gpu: whose time is estimated too, by its data sheet.
    """
    runs = [run for _, own in errands for errand in own for run in errand.runs]
    left = [
        (job, [replace(e, runs=tuple(r for r in e.runs if not r.done)) for e in own if not e.done])
        for job, own in errands
    ]
    jobs = {name: _jobs(pairs) for name, pairs in (("every", errands), ("left", left))}
    rater = Rater([job for group in jobs["left"] for job in group], counts=gpu is not None)
    every, rest = cost_of(jobs["every"]), cost_of(jobs["left"], rater) + extra
    job, done = errands[0][0], sum(run.done for run in runs)
    budget, most = job.config.budget, max(len(errand.runs) for _, own in errands for errand in own)
    caps = " + ".join(f"{tokens:,} {phase}" for phase, tokens in budget.caps.items())
    costs = _costs(rest, rater, gpu)
    return {
        "runs": f"{len(runs)} ({done} done, {len(runs) - done} left)"
        + (f"; up to {most} of them learn from one pass of the teacher" if most > 1 else ""),
        "budget": f"{budget.name}: {caps} tokens for each interface that has the phase",
        "training tokens": f"{every.tokens:,}, left {rest.tokens:,}; what runs have in common is "
        "counted once",
        "training FLOPs": f"about {every.training:.2g}, left {rest.training:.2g}",
        **costs,
        "memory": f"{costs['memory']}; for each run at a time",
        "time": f"{costs['time']}; for what is left, one run after another",
    }


def _jobs(errands: Iterable[tuple[RunContext, Sequence[WorkUnit]]]) -> list[list[RunContext]]:
    return [group for job, own in errands for group in jobs_of_errands(own, job)]


def _costs(cost: CostEstimate, rater: Rater, gpu: Accelerator | None) -> dict[str, str]:
    """Return memory and time in words, in all and by part."""
    parts = sorted(cost.parts.items(), key=lambda item: -item[1].seconds)
    by_part = ", ".join(f"{name} {duration(work.seconds)}" for name, work in parts if work.seconds)
    by_phase = (
        f"{phase} {size(sum(own.values()))} ({', '.join(f'{n} {size(v)}' for n, v in own.items())})"
        for phase, own in cost.memory.items()
    )
    said = {
        "memory": f"about {cost.peak / 2**30:.1f} GiB",
        "memory by phase": "; ".join(by_phase),
        "time": f"about {duration(cost.work.seconds)} on this machine when it is idle",
        "time by part": "; ".join([by_part, *rater.remarks()]),
    }
    if gpu is not None:
        fits = "fit" if cost.peak < gpu.memory else "do NOT fit"
        said[f"on one {gpu.name}"] = (
            f"about {duration(_on(gpu, cost))}, not measured: FLOPs and bytes counted here at "
            f"{USED:.0%} and {STREAMED:.0%} of the data sheet's {gpu.flops / 1e12:.0f} TFLOP/s and "
            f"{gpu.bandwidth / 1e12:.1f} TB/s, {LAUNCH * 1e6:.0f} µs for each operation; proxies "
            f"as on this machine; {cost.peak / 1e9:.0f} GB {fits} its {gpu.memory / 1e9:.0f}"
        )
    return {key: text for key, text in said.items() if text}


def _on(gpu: Accelerator, cost: CostEstimate) -> float:
    """Seconds on a GPU; the proxies are computed on the CPU there too."""
    return sum(gpu.seconds(work) for work in cost.parts.values()) + cost.proxies


def plain_cost(cost: CostEstimate, gpu: Accelerator | None) -> dict[str, Any]:
    """Return what a plan says of time and memory as plain numbers: seconds and bytes."""
    plain: dict[str, Any] = {
        "seconds": {name: work.seconds for name, work in cost.parts.items()},
        "memory": {phase: dict(own) for phase, own in cost.memory.items()},
    }
    if gpu is not None:
        plain["estimate"] = {"gpu": gpu.name, "seconds": _on(gpu, cost), "measured": False}
    return plain


def _trained(job: RunContext) -> str:
    """Return the training tokens of the interface and its controls, phase by phase."""
    totals = {
        name: " + ".join(f"{tokens:,}" for tokens in phases.values())
        for name, phases in trained_tokens(job).items()
    }
    return ", ".join(f"{name} {total}" for name, total in totals.items() if total) or "none"


def _kept(job: RunContext, cache: CacheConfig) -> str:
    """The size of a cache of activations, if the text has all its windows."""
    from dihal_bench.geometry.cache import PLACES

    backbone, config = job.inputs.backbone, job.config
    layers = backbone.blocks - 1 if cache.layers is None else len(cache.layers)
    of_token = layers * backbone.hidden_size * backbone.model.dtype.itemsize + 8 * len(PLACES)
    total = config.locate.windows * config.text.window * of_token
    return f"about {size(total)} in {cache.folder} (layers: {layers})"
