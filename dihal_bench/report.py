"""What a person sees of a run: the plan, the layer table, the score table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from dihal_bench.scoring.table import render

if TYPE_CHECKING:
    import torch

    from dihal_bench.config import RunConfig
    from dihal_bench.geometry.locate import Located
    from dihal_bench.records import Record


def show_located(located: Located, policy: str) -> str:
    """Return the table of layers with proxies and scores; a star marks the layer that the policy means."""
    paper, matched = located.cells["paper"]["layers"], located.cells["matched"]["layers"]
    selected = located.select(policy)
    rows = [
        {
            "layer": f"{ours['layer']} *" if ours["layer"] == selected else str(ours["layer"]),
            "curvature": f"{ours['curvature']['value']:.3g}",
            "stiffness": f"{ours['stiffness']['value']:.3g}",
            "eff. rank": f"{ours['effective_rank']['value']:.3g}",
            "score [95 %]": _interval(ours["score"]),
            "matched score [95 %]": _interval(theirs["score"]),
            "log norm": f"{norm:.2f}",
        }
        for ours, theirs, norm in zip(paper, matched, located.log_norm, strict=True)
    ]
    table = tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)
    return "\n".join([table, *located.remarks(), ""])


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:+.2f} [{estimate['lo']:+.2f}, {estimate['hi']:+.2f}]"


def show_record(record: Record, folder: Path) -> str:
    """Return the score table of a run and where its files lie."""
    data = record.data
    order = ["teacher", data["interface"]["name"], *data["config"]["controls"]]
    bridge, budget = data["bridge"], data["budget"]
    trained = data["spent"][data["interface"]["name"]]["diffusion"]
    nll = next(s for s in record.scores if s.subject == "teacher" and s.metric == "nll")
    return "\n".join(
        [
            render(record.scores, order),
            f"{data['interface']['name']} at layer {data['layer']} ({data['layer_policy']}): replaced "
            f"{data['interface']['replaced']} of {data['backbone']['blocks']} blocks, budget "
            f"{budget['name']} ({trained['tokens']:,} tokens, {trained['flops']:.3g} FLOPs), "
            f"{trained['trunk_parameters']:,} trunk parameters",
            f"scored {nll.n:,} tokens of {nll.task} in {nll.details['documents']} documents; "
            "intervals: 95 %, bootstrap over documents; S: network evaluations per chain",
            f"fvu: {bridge['fvu_mmse']:.4f} one step, {bridge['fvu_sample']:.4f} at S={bridge['steps']}; "
            "leak gate: passed by every row",
            f"record: {folder / 'record.json'}",
            f"weights: {folder / 'weights'}",
        ]
    )


def plan(config: RunConfig, *, train: bool = True) -> dict[str, Any]:
    """Return the resolved configuration and what it will cost, without training anything.

    FLOPs are estimated from parameter counts (2 per parameter and token forward, 4 backward; through
    frozen blocks 2), time from the speed of a matrix product on this machine.
    """
    from dihal_bench.run import Job

    job = Job(config, folder=Path())
    backbone, trunk = job.backbone, job.trunk_parameters() if train else 0
    tokens = config.budget.diffusion_tokens if train else 0
    chains = config.score.chains * config.score.tokens if train else 0
    teacher = 2 * backbone.info.parameters
    flops = config.locate.windows * config.text.window * teacher
    flops += tokens * (teacher + 2 * (6 * trunk + 2 * teacher))  # the interface and one trained control
    flops += chains * (sum(config.score.steps) * 2 * trunk + len(config.score.steps) * teacher)
    speed = _flops_per_second(job.device)
    weights = backbone.info.parameters * (2 if config.dtype == "bfloat16" else 4)
    logits = config.train.batch * config.text.window * backbone.vocab_size * 4
    memory = weights + trunk * 4 * 5 + 4 * logits
    return {
        "config": config.to_dict(),
        "summary": {
            "interface": f"{config.interface} with controls {', '.join(config.controls)}",
            "backbone": f"{config.backbone}: {backbone.info.architecture}, {backbone.blocks} blocks, "
            f"{backbone.info.parameters:,} parameters",
            "layer": f"{config.layer} (of 1..{backbone.blocks - 1}), conditioned on layer {config.from_layer}",
            "corpus": config.corpus,
            "training tokens": f"{tokens:,} in windows of {config.text.window}",
            "trunk parameters": f"{trunk:,}",
            "FLOPs": f"about {flops:.2g}",
            "memory": f"about {memory / 2**30:.1f} GiB",
            "time": f"about {flops / speed / 60:.0f} min at this machine's {speed / 1e9:.0f} GFLOP/s",
        },
    }


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
