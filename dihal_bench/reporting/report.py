"""What a person sees of a run: the plan, the layer table, the score table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.reporting.run_table import LEGEND, run_table
from dihal_bench.reporting.writers import text
from dihal_bench.results.metrics import DIFFUSION_GAIN, NLL, base_name
from dihal_bench.results.table import Table, differences, numbers, words
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.cost_estimate import (
    CostEstimate,
    checked,
    cost_of,
    cost_of_errands,
    duration,
    flops_per_second,
    locating,
    reading,
    trained_tokens,
)
from dihal_bench.studies.protocol_grid.grid import describe_grid
from dihal_bench.studies.protocol_grid.of_run import grid_seconds
from dihal_bench.studies.ranking.agreement import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.geometry.cache import CacheConfig
    from dihal_bench.geometry.locate import Located
    from dihal_bench.results.record import Record
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
    config: RunConfig, *, train: bool = True, cache: CacheConfig | None = None, grid: bool = False
) -> dict[str, Any]:
    """Return the resolved configuration and what it will cost, without training anything.

    Args:
        config: what would run.
        train: whether anything would be trained and scored; False: located only.
        cache: where activations would be kept.
        grid: whether the layers would be scored under every protocol as well.

    Raises:
        UserError: the configuration cannot be run.
    """
    job = checked(config, RunContext(config, folder=Path()))
    backbone, block = job.inputs.backbone, job.config.block_size
    cost = cost_of([[job]]) if train else locating(job)
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
        "memory": f"about {cost.memory / 2**30:.1f} GiB",
    }
    if grid:
        seconds = grid_seconds(config.locate, backbone.blocks - 1, backbone.hidden_size)
        cost += reading(job) + CostEstimate(measured=seconds)  # the backbone's pass is made again
        summary["grid"] = f"{describe_grid(config.locate)}: at most about {duration(seconds)}"
    summary["time"] = _time(cost, job)
    if cache is not None:
        summary["activations"] = _kept(job, cache)
    return {"config": config.to_dict(), "summary": summary}


def plan_runs(
    errands: Sequence[tuple[RunContext, Sequence[WorkUnit]]], extra: CostEstimate
) -> dict[str, str]:
    """Return what the runs of a sweep or a comparison will cost, and what of it is left.

    Args:
        errands: the jobs beside which runs are planned, one per backbone, each with these.
        extra: what is done besides them.
    """
    runs = [run for _, own in errands for errand in own for run in errand.runs]
    every, rest = CostEstimate(), extra
    for job, own in errands:
        left = [replace(e, runs=tuple(r for r in e.runs if not r.done)) for e in own if not e.done]
        every += cost_of_errands(own, job)
        rest += cost_of_errands(left, job)
    job, done = errands[0][0], sum(run.done for run in runs)
    budget, most = job.config.budget, max(len(errand.runs) for _, own in errands for errand in own)
    caps = " + ".join(f"{tokens:,} {phase}" for phase, tokens in budget.caps.items())
    return {
        "runs": f"{len(runs)} ({done} done, {len(runs) - done} left)"
        + (f"; up to {most} of them learn from one pass of the teacher" if most > 1 else ""),
        "budget": f"{budget.name}: {caps} tokens for each interface that has the phase",
        "training tokens": f"{every.tokens:,}, left {rest.tokens:,}; what runs have in common is "
        "counted once",
        "training FLOPs": f"about {every.training:.2g}, left {rest.training:.2g}",
        "memory": f"about {every.memory / 2**30:.1f} GiB for each run at a time",
        "time": f"{_time(rest, job)}, for what is left, one run after another",
    }


def _time(cost: CostEstimate, job: RunContext) -> str:
    speed = flops_per_second(job.inputs.device)
    return f"about {duration(cost.seconds(speed))} at this machine's {speed / 1e9:.0f} GFLOP/s"


def _trained(job: RunContext) -> str:
    """Return the training tokens of the interface and its controls, phase by phase."""
    totals = {
        name: " + ".join(f"{tokens:,}" for tokens in phases.values())
        for name, phases in trained_tokens(job).items()
    }
    return ", ".join(f"{name} {total}" for name, total in totals.items() if total) or "none"


def _kept(job: RunContext, cache: CacheConfig) -> str:
    """The size of a cache of activations, if the text has all its windows."""
    from dihal_bench.geometry.cache import PLACES, size

    backbone, config = job.inputs.backbone, job.config
    layers = backbone.blocks - 1 if cache.layers is None else len(cache.layers)
    of_token = layers * backbone.hidden_size * backbone.model.dtype.itemsize + 8 * len(PLACES)
    total = config.locate.windows * config.text.window * of_token
    return f"about {size(total)} in {cache.folder} (layers: {layers})"
