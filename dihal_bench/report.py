"""What a person sees of a run: the plan, the layer table, the score table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from dihal_bench.registry import INTERFACES
from dihal_bench.scoring.render import render

if TYPE_CHECKING:
    import torch

    from dihal_bench.config import RunConfig
    from dihal_bench.geometry.cache import CacheConfig
    from dihal_bench.geometry.locate import Located
    from dihal_bench.job import Job
    from dihal_bench.records import Record


def show_located(located: Located, selected: int) -> str:
    """Return the table of layers with proxies and scores; a star marks the selected one."""
    paper, matched = located.cells["paper"]["layers"], located.cells["matched"]["layers"]
    crossed = {row["layer"]: row["stiffness_cross"] for row in located.cross}
    rows = [
        {
            "layer": f"{ours['layer']} *" if ours["layer"] == selected else str(ours["layer"]),
            "curvature": f"{ours['curvature']['value']:.3g}",
            "stiffness": f"{ours['stiffness']['value']:.3g}",
            "cross-fitted": _optional(crossed.get(ours["layer"])),
            "eff. rank": f"{ours['effective_rank']['value']:.3g}",
            "score [95 %]": _interval(ours["score"]),
            "matched score [95 %]": _interval(theirs["score"]),
            "log norm": f"{norm:.2f}",
        }
        for ours, theirs, norm in zip(paper, matched, located.log_norm, strict=True)
    ]
    table = tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)
    return "\n".join([table, "*: the layer that is selected", *located.remarks(), ""])


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _interval(estimate: dict[str, float]) -> str:
    if estimate["lo"] == estimate["hi"]:  # of a single resample
        return f"{estimate['value']:+.2f}"
    return f"{estimate['value']:+.2f} [{estimate['lo']:+.2f}, {estimate['hi']:+.2f}]"


def show_record(record: Record, folder: Path) -> str:
    """Return the score table of a run and where its files lie."""
    data = record.data
    order = ["teacher", data["interface"]["name"], *data["interface"]["controls"]]
    notes = [_what(data), *_spent(data), _scored(record), _LEGEND, *_gain(record), *_bridge(record)]
    places = [f"record: {folder / 'record.json'}", f"weights: {folder / 'weights'}"]
    return "\n".join([render(record.own_scores, order), *notes, *places])


_LEGEND = (
    "ΔNLL: the row's minus the reference row's (positive: worse); KL and top-1 agreement: with the "
    "teacher; Brier-1: higher is better; ~: more chains would still change the NLL by 0.02 or more"
)


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
    phases = data["spent"][data["interface"]["name"]]
    return [
        f"{phase}: {own['tokens']:,} tokens, {own['steps']:,} steps, {own['flops']:.3g} FLOPs, "
        f"{own['seconds']:.0f} s"
        for phase, own in phases.items()
    ]


def _scored(record: Record) -> str:
    nll = next(s for s in record.own_scores if s.subject == "teacher" and s.metric.endswith("nll"))
    where = "tokens" if nll.metric == "nll" else "first tokens of blocks"
    return (
        f"scored {nll.n:,} {where} of {nll.task} in {nll.details['documents']} documents; "
        "intervals: 95 %, bootstrap over documents; S: network evaluations per chain"
    )


def _gain(record: Record) -> list[str]:
    gains = [s for s in record.own_scores if s.metric.endswith("diffusion_gain")]
    if not gains:
        return []
    best = ", ".join(sorted({s.details["control"] for s in gains}))
    return [f"diffusion gain: NLL of the best control without diffusion ({best}) - the row's"]


def _bridge(record: Record) -> list[str]:
    bridge, name = record.data["bridge"], record.data["interface"]["name"]
    samples = any(s.subject == name and s.kind == "ensemble" for s in record.own_scores)
    sampled = f", {bridge['fvu_sample']:.4f} at S={bridge['steps']}" if samples else ""
    own = bridge["oracle"]
    half = "at no noise tried" if own["sigma_half"] is None else f"at sigma {own['sigma_half']:.2f}"
    return [
        f"fvu: {bridge['fvu_mmse']:.4f} one step{sampled}; leak gate: passed by every row",
        f"recovery from the true signal: agreement {own['agreement']:.4f}, KL {own['kl']:.2g}; "
        f"agreement halves {half}",
        *(f"denoiser: {what} {value:.4f}" for what, value in bridge["denoiser"].items()),
    ]


def plan(
    config: RunConfig, *, train: bool = True, cache: CacheConfig | None = None
) -> dict[str, Any]:
    """Return the resolved configuration and what it will cost, without training anything.

    FLOPs are estimated from parameter counts: per parameter and token 2 forward and 4 backward, 2
    backward through frozen blocks. Time follows from the speed of a matrix product on this machine.

    Args:
        config: what would run.
        train: whether anything would be trained and scored; False: located only.
        cache: where activations would be kept.

    Raises:
        UserError: the configuration cannot be run.
    """
    from dihal_bench.job import Job
    from dihal_bench.text.sources import find_corpus

    job = Job(config, folder=Path())
    backbone, speed = job.inputs.backbone, _flops_per_second(job.inputs.device)
    find_corpus(config.corpus)
    job.check_span()
    tokens = _trained_tokens(job) if train else {}
    trunk = job.trunk_parameters() if train else 0
    flops = _flops(job, tokens, trunk)
    layer = f"{config.layer} (of 1..{backbone.blocks - 1})" if job.locates else f"{backbone.blocks}"
    summary = {
        "interface": f"{config.interface} with controls {', '.join(job.names[1:]) or 'none'}",
        "regime": config.regime
        + (f", blocks of {job.config.block_size}" if job.config.block_size else ""),
        "backbone": f"{config.backbone}: {backbone.info.architecture}, {backbone.blocks} blocks, "
        f"{backbone.info.parameters:,} parameters",
        "layer": f"{layer}, conditioned on layer {config.from_layer}",
        "corpus": config.corpus,
        "training tokens": f"{_shown(tokens)} in windows of {config.text.window}",
        "trunk parameters": f"{trunk:,}",
        "FLOPs": f"about {flops:.2g}",
        "memory": f"about {_memory(job, trunk) / 2**30:.1f} GiB",
        "time": f"about {flops / speed / 60:.0f} min at this machine's {speed / 1e9:.0f} GFLOP/s",
    }
    if cache is not None:
        summary["activations"] = _kept(job, cache)
    return {"config": config.to_dict(), "summary": summary}


def _kept(job: Job, cache: CacheConfig) -> str:
    """The size of a cache of activations, if the text has all its windows."""
    from dihal_bench.geometry.cache import PLACES, size

    backbone, config = job.inputs.backbone, job.config
    layers = backbone.blocks - 1 if cache.layers is None else len(cache.layers)
    of_token = layers * backbone.hidden_size * backbone.model.dtype.itemsize + 8 * len(PLACES)
    total = config.locate.windows * config.text.window * of_token
    return f"about {size(total)} in {cache.folder} (layers: {layers})"


def _trained_tokens(job: Job) -> dict[str, dict[str, int]]:
    """Return name -> phase -> tokens."""
    kinds = {name: INTERFACES.get(name) for name in job.names}
    return {name: job.config.budget.plan(kind.phases) for name, kind in kinds.items()}


def _shown(tokens: dict[str, dict[str, int]]) -> str:
    totals = {n: " + ".join(f"{t:,}" for t in own.values()) for n, own in tokens.items() if own}
    return ", ".join(f"{name} {total}" for name, total in totals.items()) or "none"


def _flops(job: Job, tokens: dict[str, dict[str, int]], trunk: int) -> float:
    """Estimate locating, training and scoring; of the latter none if nothing is trained."""
    config, teacher = job.config, 2 * job.inputs.backbone.info.parameters
    located = config.locate.windows * config.text.window * teacher * job.locates
    seen = [sum(own.values()) for own in tokens.values()]
    trained = max(seen, default=0) * teacher + sum(seen) * (2 * 6 * trunk + 2 * teacher)
    chains = config.score.chains * config.score.tokens if tokens else 0
    steps = config.score.steps
    scored = chains * (sum(steps) * 2 * trunk + len(steps) * teacher)
    return float(located + trained + scored)


_LIBRARIES = 2**29  # bytes
_COPIES = 16  # of a pass's logits, in float32: both models', probabilities, gradients


def _memory(job: Job, trunk: int) -> float:
    """Estimate bytes: libraries, the teacher, trunks with gradients and optimiser state, logits.

    What locating holds (sampled rows twice, and covariances) is gone before anything is trained.
    """
    config, backbone = job.config, job.inputs.backbone
    trained = sum(bool(INTERFACES.get(name).phases) for name in job.names)
    weights = sum(p.numel() * p.element_size() for p in backbone.model.parameters())
    windows = min(config.train.batch, config.train.micro)
    logits = windows * config.text.window * backbone.vocab_size * 4
    located = _located_memory(job) if job.locates else 0
    work = trained * trunk * 4 * 5 + _COPIES * logits
    return float(_LIBRARIES + weights + max(work, located))


def _located_memory(job: Job) -> int:
    from dihal_bench.geometry.crossfit import crossed_layers

    config, backbone = job.config.locate, job.inputs.backbone
    layers, size = list(range(1, backbone.blocks)), backbone.hidden_size
    rows = config.windows * config.per_window * len(layers) * size * 4
    return 2 * rows + len(crossed_layers(layers, size)) * size**2 * 8


def _flops_per_second(device: torch.device) -> float:
    """Time one matrix product; the result is a rough figure of what training will reach."""
    import torch

    side = 512 if device.type == "cpu" else 4096
    a = torch.randn(side, side, device=device)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 3  # small matrices, norms and softmaxes reach about a third
