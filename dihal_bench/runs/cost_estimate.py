"""What work will cost, before it is done: tokens, FLOPs, memory and time of one run or of many.

Time is that of a window or a few, timed here in the run's own arithmetic, times how many there are.
FLOPs are estimated from parameter counts: per parameter and token 2 forward and 4 backward, 2
backward through frozen blocks.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from dihal_bench.config.identity import identity, settled
from dihal_bench.core.registry import INTERFACES
from dihal_bench.geometry.seconds import pass_seconds, pass_tokens, proxy_seconds
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.plan_parts import (
    base_memory,
    located_memory,
    memory_of,
    parts_of,
    teaching,
)
from dihal_bench.runs.rates import Bench, Rates, at_layer, bytes_of
from dihal_bench.runs.timing import Timer, Work
from dihal_bench.training.shares import check_shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.runs.plan_parts import Memory
    from dihal_bench.runs.work_unit import WorkUnit


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What work costs.

    Attributes:
        tokens: that are trained on, of all interfaces and phases.
        training: FLOPs of that, the teacher's included.
        flops: of everything but the proxies.
        parts: part of the work -> what it takes.
        proxies: seconds of what is measured on activations, which are among those of the parts.
        memory: phase -> what -> bytes of a process, at most.
    """

    tokens: int = 0
    training: float = 0.0
    flops: float = 0.0
    parts: Mapping[str, Work] = field(default_factory=dict)
    proxies: float = 0.0
    memory: Memory = field(default_factory=dict)

    def __add__(self, other: CostEstimate) -> CostEstimate:
        names, phases = dict.fromkeys([*self.parts, *other.parts]), {**self.memory, **other.memory}
        return CostEstimate(
            tokens=self.tokens + other.tokens,
            training=self.training + other.training,
            flops=self.flops + other.flops,
            parts={n: self.parts.get(n, Work()) + other.parts.get(n, Work()) for n in names},
            proxies=self.proxies + other.proxies,
            memory={
                phase: max(self.memory.get(phase, {}), other.memory.get(phase, {}), key=_total)
                for phase in phases
            },
        )

    @property
    def work(self) -> Work:
        """All parts together, one after another."""
        return sum(self.parts.values(), start=Work())

    @property
    def peak(self) -> float:
        """Bytes of the phase that holds most."""
        return max(map(_total, self.memory.values()), default=0.0)


def _total(memory: Mapping[str, float]) -> float:
    return sum(memory.values())


class Rater:
    """What is timed of jobs, once for all that are alike but for layer, seed, text and budget.

    Of those that differ in layer the middle one is timed. Of more than a few kinds the others are
    estimated by their FLOPs.

    Attributes:
        counts: whether FLOPs and bytes are counted as well, for the estimate of another device.
        timed: what was estimated from times so far; what cannot be follows from it.
    """

    def __init__(self, jobs: Iterable[RunContext], *, counts: bool = False):
        self.counts = counts
        self.timed = CostEstimate()
        self._alike: dict[str, list[RunContext]] = {}
        self._known: dict[str, tuple[Rates, dict[str, Interface]]] = {}
        for job in map(at_layer, jobs):
            self._alike.setdefault(_timed_as(job), []).append(job)

    def times(self, job: RunContext) -> bool:
        """Return whether a job's rates are known, or one of the few that are timed."""
        return _timed_as(job) in self._known or len(self._known) < _KINDS

    def of(self, job: RunContext) -> tuple[Rates, dict[str, Interface]]:
        """Return the rates of a job, and interfaces such as its own."""
        key = _timed_as(job)
        if key not in self._known:
            some = sorted(self._alike.get(key, [at_layer(job)]), key=_layer)
            middle = some[len(some) // 2]
            bench = Bench(middle, Timer.on(job.inputs.device, counts=self.counts))
            rates = bench.rates()
            self._known[key] = rates, {name: middle.new(name) for name in middle.names}
        return self._known[key]

    def remarks(self) -> list[str]:
        """Return what was not timed itself, one sentence each."""
        found = []
        if len(self._alike) > _KINDS:
            found.append(f"{_KINDS} of {len(self._alike)} kinds of runs timed, others by FLOPs")
        for key, (rates, _) in self._known.items():
            layers = {_layer(job) for job in self._alike.get(key, [])}
            if len(layers) > 1:
                least, most = min(layers), max(layers)
                found.append(f"timed at layer {rates.layer} alone, of {least} to {most}")
        return list(dict.fromkeys(found))


def _layer(job: RunContext) -> int:
    return job.span(job.names[0]).b


_KINDS = 3  # of jobs, that are timed at most
_ELSEWHERE = ("layer", "from_layer", "seed", "corpus", "budget", "locate", "controls", "include")


def _timed_as(job: RunContext) -> str:
    """What the rates of a job depend on."""
    content = {k: v for k, v in job.config.to_dict().items() if k not in _ELSEWHERE}
    plans = [sorted(INTERFACES.get(name).phases) for name in job.names]
    return json.dumps([job.names, plans, content], sort_keys=True)


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


def cost_of(groups: Iterable[Sequence[RunContext]], rater: Rater | None = None) -> CostEstimate:
    """Return what runs cost; what several have in common is counted once.

    That is locating, the teacher's pass over a batch within a group, and what several train alike,
    such as a control of several interfaces.

    Args:
        groups: runs that learn from one pass of the teacher.
        rater: knows their rates; None: time and memory are left out.
    """
    total, known, located = CostEstimate(), set[str](), set[str]()
    untimed = 0.0
    for jobs in groups:
        passed, taught = 0.0, Work()
        for job in jobs:
            if job.locates and (place := _place(job)) not in located:
                located.add(place)
                total += locating(job, counts=rater is not None and rater.counts)
            fresh = {
                name: plan
                for name, plan in trained_tokens(job).items()
                if _alike(job, name) not in known
            }
            known |= {_alike(job, name) for name in fresh}
            sums = [sum(plan.values()) for plan in fresh.values()]
            own = _running(job, sum(sums))
            total += own
            passed = max(passed, _teacher(job) * max(sums, default=0))
            if rater is None:
                continue
            if rater.times(job):
                rates, interfaces = rater.of(job)
                parts = parts_of(job, rates, interfaces, fresh)
                rater.timed += CostEstimate(flops=own.flops, parts=parts)
                total += CostEstimate(parts=parts, memory=memory_of(job, rates))
                taught = max(taught, teaching(job, rates, fresh), key=lambda work: work.seconds)
            else:
                untimed += own.flops
        total += CostEstimate(
            training=passed, flops=passed, parts={"training": taught} if rater else {}
        )
    if rater is not None and untimed:
        other = untimed / rater.timed.flops * rater.timed.work
        total += CostEstimate(parts={"not timed": other})
    return total


def locating(job: RunContext, *, counts: bool = False) -> CostEstimate:
    """Return what the layers' geometry costs.

    Args:
        job: of a run.
        counts: whether FLOPs and bytes are counted as well, for the estimate of another device.
    """
    backbone = job.inputs.backbone
    seconds = proxy_seconds(job.config.locate, backbone.blocks - 1, backbone.hidden_size)
    weights = bytes_of(backbone.model.parameters())
    return reading(job, counts=counts) + CostEstimate(
        parts={"locate": Work(seconds=seconds)},
        proxies=seconds,
        memory={"locate": {**base_memory(weights), "sampled states": located_memory(job)}},
    )


def reading(job: RunContext, *, counts: bool = False) -> CostEstimate:
    """Return what it costs to run the backbone over the text that layers are located in.

    Args:
        job: of a run.
        counts: see `locating`.
    """
    config, backbone = job.config, job.inputs.backbone
    window, blocks = config.text.window, backbone.info.parameters
    blocks -= backbone.model.get_input_embeddings().weight.numel()
    tokens = pass_tokens(backbone, config.locate, window)
    seconds = pass_seconds(
        backbone,
        config.locate,
        window,
        residual=config.residual,
        autocast=job.locates_under_autocast,
    )
    counted = Work()
    if counts:
        bench = Bench(at_layer(job), Timer.on(job.inputs.device, counts=True))
        counted = tokens / window * bench.reading()
    own = replace(counted, seconds=seconds, tokens=tokens)
    return CostEstimate(flops=2.0 * blocks * tokens, parts={"locate": own})


def jobs_of_errands(errands: Sequence[WorkUnit], job: RunContext) -> list[list[RunContext]]:
    """Return the jobs of errands that are planned beside a job, errand by errand."""
    jobs: dict[str, RunContext] = {}  # by backbone and text, so that each is loaded once

    def of(config: RunConfig) -> RunContext:
        near = next((j for j in jobs.values() if j.inputs.serve(config)), job)
        return jobs.setdefault(identity(config).evaluation, checked(config, near))

    return [[of(run.config) for run in errand.runs] for errand in errands]


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
    return CostEstimate(tokens=tokens, training=trained, flops=trained + scored)


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


_UNITS = ((1.0, "s", 90.0), (60.0, "min", 5400.0), (3600.0, "hours", 172_800.0))  # and from when on


def duration(seconds: float) -> str:
    """Return a time as a person says it: seconds, minutes, hours or days."""
    for size, unit, end in _UNITS:
        if seconds < end:
            digits = 1 if unit == "hours" else 0
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / 86_400:,.0f} days"
