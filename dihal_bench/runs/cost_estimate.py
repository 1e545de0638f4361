"""What work will cost, before it is done: tokens, FLOPs, memory and time of one run or of many.

FLOPs are estimated from parameter counts: per parameter and token 2 forward and 4 backward, 2
backward through frozen blocks. Time follows from the speed of a matrix product on this machine;
that of locating is measured on a part of it.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from dihal_bench.config.identity import identity, settled
from dihal_bench.core.registry import INTERFACES
from dihal_bench.geometry.seconds import pass_seconds, pass_tokens, proxy_seconds
from dihal_bench.runs.context import RunContext
from dihal_bench.training.shares import check_shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.runs.work_unit import WorkUnit

_LIBRARIES = 2**29  # bytes
_COPIES = 16  # of a pass's logits, in float32: both models', probabilities, gradients


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What work costs.

    Attributes:
        tokens: that are trained on, of all interfaces and phases.
        training: FLOPs of that, the teacher's included.
        flops: of everything.
        timed: those FLOPs whose time is in ``measured``.
        measured: seconds that were told by timing a part, not by FLOPs.
        memory: bytes of a process, at most.
    """

    tokens: int = 0
    training: float = 0.0
    flops: float = 0.0
    timed: float = 0.0
    measured: float = 0.0
    memory: float = 0.0

    def __add__(self, other: CostEstimate) -> CostEstimate:
        return CostEstimate(
            tokens=self.tokens + other.tokens,
            training=self.training + other.training,
            flops=self.flops + other.flops,
            timed=self.timed + other.timed,
            measured=self.measured + other.measured,
            memory=max(self.memory, other.memory),
        )

    def seconds(self, speed: float) -> float:
        """Return the time that it takes, one thing after another, at so many FLOP/s."""
        return (self.flops - self.timed) / speed + self.measured


def checked(config: RunConfig, job: RunContext) -> RunContext:
    """Return the job of a configuration that is planned beside ``job``, with what they share.

    Raises:
        UserError: it cannot be run, as far as that is known without reading text.
    """
    from dihal_bench.data.sources import find_corpus

    check_shares(config.train)
    find_corpus(config.corpus, config.text.column)
    inputs = job.inputs if job.inputs.serve(config) else None
    own = RunContext(config, job.folder, job.say, shared=job.shared, inputs=inputs)
    own.check_span()
    return own


def cost_of(groups: Iterable[Sequence[RunContext]]) -> CostEstimate:
    """Return what runs cost; what several have in common is counted once.

    That is locating, the teacher's pass over a batch within a group, and what several train alike,
    such as a control of several interfaces.

    Args:
        groups: runs that learn from one pass of the teacher.
    """
    total, known, located = CostEstimate(), set[str](), set[str]()
    for jobs in groups:
        passed = 0
        for job in jobs:
            if job.locates and (place := _place(job)) not in located:
                located.add(place)
                total += locating(job)
            fresh = {
                key: sum(tokens.values())
                for name, tokens in trained_tokens(job).items()
                if (key := _alike(job, name)) not in known
            }
            known |= set(fresh)
            total += _running(job, sum(fresh.values()))
            passed = max(passed, _teacher(job) * max(fresh.values(), default=0))
        total += CostEstimate(training=passed, flops=passed)
    return total


def locating(job: RunContext) -> CostEstimate:
    """Return what the layers' geometry costs."""
    backbone = job.inputs.backbone
    seconds = proxy_seconds(job.config.locate, backbone.blocks - 1, backbone.hidden_size)
    memory = _base_memory(job) + _located_memory(job)
    return reading(job) + CostEstimate(measured=seconds, memory=memory)


def reading(job: RunContext) -> CostEstimate:
    """Return what it costs to run the backbone over the text that layers are located in."""
    config, backbone = job.config, job.inputs.backbone
    blocks = backbone.info.parameters - backbone.model.get_input_embeddings().weight.numel()
    flops = 2.0 * blocks * pass_tokens(backbone, config.locate, config.text.window)
    seconds = pass_seconds(
        backbone,
        config.locate,
        config.text.window,
        residual=config.residual,
        autocast=job.locates_under_autocast,
    )
    return CostEstimate(flops=flops, timed=flops, measured=seconds)


def cost_of_errands(errands: Sequence[WorkUnit], job: RunContext) -> CostEstimate:
    """Return what errands cost that are planned beside a job."""
    jobs: dict[str, RunContext] = {}  # by backbone and text, so that each is loaded once

    def of(config: RunConfig) -> RunContext:
        near = next((j for j in jobs.values() if j.inputs.serve(config)), job)
        return jobs.setdefault(identity(config).evaluation, checked(config, near))

    return cost_of([[of(run.config) for run in errand.runs] for errand in errands])


def trained_tokens(job: RunContext) -> dict[str, dict[str, int]]:
    """Return name -> phase -> tokens."""
    kinds = {name: INTERFACES.get(name) for name in job.names}
    return {name: job.config.budget.plan(kind.phases) for name, kind in kinds.items()}


def _running(job: RunContext, tokens: int) -> CostEstimate:
    """What a run costs beside locating and the teacher's pass, which others may share."""
    config, teacher, trunk = job.config, _teacher(job), job.trunk_parameters()
    trained = float(tokens * (2 * 6 * trunk + 2 * teacher))
    steps, chains = config.score.steps, config.score.chains * config.score.tokens
    scored = chains * (sum(steps) * 2 * trunk + len(steps) * teacher)
    memory = _base_memory(job) + _training_memory(job, trunk)
    return CostEstimate(tokens=tokens, training=trained, flops=trained + scored, memory=memory)


def _teacher(job: RunContext) -> int:
    """FLOPs of the teacher per token."""
    return 2 * job.inputs.backbone.info.parameters


def _place(job: RunContext) -> str:
    """What a job's located layers depend on."""
    config = job.config
    read = [config.backbone, config.corpus, config.dtype, asdict(config.text)]
    return json.dumps([*read, settled("locate", config.locate), config.residual, config.seed])


def _alike(job: RunContext, name: str) -> str:
    """What the training of one of a job's interfaces depends on: of equal ones one is trained."""
    config, kind = job.config, INTERFACES.get(name)
    content = config.to_dict()
    for key in ("interface", "controls", "score", "locate", "budget"):
        del content[key]
    section = kind.section or name
    content["options"] = {k: v for k, v in content["options"].items() if k == section}
    if kind.bears_tokens:
        del content["layer"]
    return json.dumps([name, config.budget.plan(kind.phases), content], sort_keys=True)


def _base_memory(job: RunContext) -> float:
    weights = sum(p.numel() * p.element_size() for p in job.inputs.backbone.model.parameters())
    return float(_LIBRARIES + weights)


def _training_memory(job: RunContext, trunk: int) -> float:
    """Trunks with gradients and optimiser state, and logits.

    What locating holds is gone before anything is trained.
    """
    config = job.config
    trained = sum(bool(INTERFACES.get(name).phases) for name in job.names)
    windows = min(config.train.batch, config.train.micro)
    logits = windows * config.text.window * job.inputs.backbone.vocab_size * 4
    return float(trained * trunk * 4 * 5 + _COPIES * logits)


def _located_memory(job: RunContext) -> float:
    """Sampled rows twice, covariances, and the inner products of a pool where it has them."""
    from dihal_bench.geometry.crossfit import crossed_layers
    from dihal_bench.geometry.pool import gram_bytes, shares

    config, backbone = job.config.locate, job.inputs.backbone
    layers, size = list(range(1, backbone.blocks)), backbone.hidden_size
    kept = config.windows * config.per_window
    shared = shares((kept, size), [config.sample] * config.resamples)
    rows, sums = kept * len(layers) * size * 4, len(crossed_layers(layers, size)) * size**2 * 8
    return float(2 * rows + sums + shared * gram_bytes(kept))


def flops_per_second(device: torch.device) -> float:
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


_UNITS = ((1.0, "s", 90.0), (60.0, "min", 5400.0), (3600.0, "hours", 172_800.0))  # and from when on


def duration(seconds: float) -> str:
    """Return a time as a person says it: seconds, minutes, hours or days."""
    for size, unit, end in _UNITS:
        if seconds < end:
            digits = 1 if unit == "hours" else 0
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / 86_400:,.0f} days"
