"""How long the parts of a run take here: a window or a few of each, timed in its own arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dihal_bench.config.schema import AUTO
from dihal_bench.core.progress import progress
from dihal_bench.core.registry import INTERFACES
from dihal_bench.evaluation.block_bound import block_bound
from dihal_bench.evaluation.cache import ScoreCache
from dihal_bench.evaluation.evaluate import has_bound
from dihal_bench.evaluation.likelihood import TEACHER, TRUE, Row
from dihal_bench.evaluation.reconstruction import bridgeability
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import PHASES, Step
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.runs.context import STATISTICS_BATCH, RunContext
from dihal_bench.runs.noise_text import NoiseText
from dihal_bench.runs.timing import Timer, Work
from dihal_bench.training.sampling import Need, Pass
from dihal_bench.training.trainee import TrainState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from dihal_bench.interfaces.base import Interface

_LONG = 0.06  # seconds of the teacher: so many windows are timed at once, where a pass has them
_MOST = 16  # windows of a text of noise


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What it takes to score a window of an interface.

    Attributes:
        fixed: whatever the chains: the condition and its encoding.
        evaluation: a network evaluation of one chain.
        recovery: of one chain, with the logits and what is made of them.
    """

    fixed: Work
    evaluation: Work
    recovery: Work

    def row(self, row: Row) -> Work:
        """Return what a row takes for a window."""
        if row.signal == TRUE:
            return self.recovery
        each = row.steps * self.evaluation + self.recovery
        return self.fixed + row.chains * each


@dataclass(frozen=True, kw_only=True)
class PhaseRates:
    """What the training of several interfaces takes, side by side in one phase.

    Attributes:
        teacher: its pass over a window, which they share.
        learn: name -> forward and backward of a window.
        update: name -> the optimiser's step.
        state: name -> bytes of weights, averages, gradients and optimiser state.
    """

    teacher: Work
    learn: Mapping[str, Work]
    update: Mapping[str, Work]
    state: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the parts of a run take, each for one window unless it says otherwise.

    Attributes:
        layer: that was timed, where interfaces enter.
        reading: the teacher, to the logits.
        statistics: of the closed form.
        solving: the same once, for all windows.
        phases: phase -> its training.
        shared: what rows of a scored batch have in common: the teacher and its own row.
        scoring: name -> an interface's rows.
        reconstruction: of the first interface's signals, and bounds if it has any.
        weights: bytes of the backbone.
    """

    layer: int
    reading: Work
    statistics: Work
    solving: Work
    phases: Mapping[str, PhaseRates]
    shared: Work
    scoring: Mapping[str, Scoring]
    reconstruction: Work
    weights: float


def at_layer(job: RunContext) -> RunContext:
    """Return a job whose layer is known: where it is not yet, the lowest, which costs most."""
    if job.config.layer != AUTO or not job.locates or job.knows_layer:
        return job
    config = replace(job.config, layer=str(job.config.from_layer + 1))
    return RunContext(config, Path(), shared=job.shared, inputs=job.inputs)


def rates_of(job: RunContext, timer: Timer | None = None) -> Rates:
    """Time the parts of a run on random text; nothing is read or written.

    Args:
        job: whose layer is known; see `at_layer`.
        timer: by default that of the job's device.
    """
    return Bench(job, timer or Timer.on(job.inputs.device)).rates()


class Bench:
    """What a job's parts are timed on.

    Attributes:
        job: whose layer is known.
        timer: of its device.
        backbone: its teacher.
        text: random.
        windows: of it that are timed at once, where a pass has as many.
    """

    def __init__(self, job: RunContext, timer: Timer):
        self.job, self.timer = job, timer
        self.backbone, self._config = job.inputs.backbone, job.config
        self.text = NoiseText(job.config.text.window, self.backbone.vocab_size, _MOST)
        with torch.no_grad():  # libraries and threads are loaded
            self.backbone.logits(torch.zeros(1, 8, dtype=torch.int64, device=self.backbone.device))
        one = timer.time(partial(self._read, 1)).seconds
        self.windows = max(1, min(_MOST, int(_LONG / max(one, 1e-6))))

    def rates(self) -> Rates:
        """Time all parts."""
        names = self.job.names
        phases = {phase: own for phase in PHASES if (own := self._trained(phase))}
        with progress("timing", 3 + len(phases) + len(names), unit="parts") as bar:
            reading = self.reading()
            bar.update()
            statistics, solving, found = self._statistics()
            interfaces = {name: self.interface(name, found) for name in names}
            bar.update()
            trained = {}
            for phase, own in phases.items():
                trained[phase] = self.phase(phase, {name: interfaces[name] for name in own})
                bar.update()
            scoring = {}
            shared = self.shared()
            for name, interface in interfaces.items():
                scoring[name] = self.scoring(name, interface, shared)
                bar.update()
            reconstruction = self._reconstruction(interfaces[names[0]])
            bar.update()
        return Rates(
            layer=self.job.span(names[0]).b,
            reading=reading,
            statistics=statistics,
            solving=solving,
            phases=trained,
            shared=shared,
            scoring=scoring,
            reconstruction=reconstruction,
            weights=bytes_of(self.backbone.model.parameters()),
        )

    def reading(self, *, autocast: bool = False) -> Work:
        """Time the teacher over a window, to its logits.

        Args:
            autocast: in the arithmetic of training, if that is another.
        """
        return self._per(_MOST, self._read, autocast=autocast, memory=True)

    def interface(self, name: str, statistics: SpanStatistics | None = None) -> Interface:
        """Return an interface that is fitted, by default to random text, and not trained."""
        interface = self.job.new(name)
        interface.fit(statistics or self._statistics()[2])
        return interface

    def phase(self, phase: str, interfaces: Mapping[str, Interface]) -> PhaseRates:
        """Time training, in passes of as many windows as fit: ``train.micro`` at most."""
        train, step = self._config.train, Step(index=0, of=1000, phase=phase)
        states = {n: TrainState(n, own, train, phase) for n, own in interfaces.items()}
        count = min(train.batch, train.micro)
        teacher, learn, update, held = Work(), dict.fromkeys(states, Work()), {}, {}
        for weight, taught in self._taught(next(iter(states.values())), min(count, self.windows)):
            layers = {layer for own in interfaces.values() for layer in own.layers}
            need = Need.of(layers, taught, distils=any(own.distils for own in states.values()))
            lesson = partial(self._lesson, need)
            teacher += weight * self._per(count, lesson, autocast=True, memory=True)
            with torch.autocast(self.backbone.device.type, torch.bfloat16, enabled=train.autocast):
                batch = lesson(min(count, self.windows))
            for name, own in states.items():
                work = partial(_learn, own, batch, replace(step, taught=taught))
                learn[name] += weight * self._per(count, work, memory=True)
        for name, own in states.items():
            update[name] = self.timer.time(partial(_update, own))
            held[name] = bytes_of(_held(own))
            own.adopt_average()
        return PhaseRates(teacher=teacher, learn=learn, update=update, state=held)

    def _taught(
        self, state: TrainState, windows: int
    ) -> list[tuple[float, tuple[int, ...] | None]]:
        """Return which windows of a pass have token losses, and how often: they differ by one."""
        weights = self._config.losses
        if state.phase != "diffusion" or not (weights.ce or weights.kd) or weights.token_share >= 1:
            return [(1.0, None)]
        often, few = math.modf(weights.token_share * windows)
        kinds = [(1 - often, tuple(range(int(few)))), (often, tuple(range(int(few) + 1)))]
        return [(weight, taught) for weight, taught in kinds if weight > 0]

    def _lesson(self, need: Need, windows: int) -> Batch:
        places = range(windows)
        one = Pass(places=places, indices=places, windows=self.text.batch(places))
        return need.lesson(one, self.backbone)

    def shared(self) -> Work:
        """Time what all rows of a scored window have in common."""
        return self._per(
            self._config.score.batch, partial(self._score, [Row(subject=TEACHER)], {}), memory=True
        )

    def scoring(self, name: str, interface: Interface, shared: Work) -> Scoring:
        """Time a window of an interface's rows, less what rows have in common."""

        def row(**settings: Any) -> Work:
            own = [Row(subject=name, **settings)]
            work = partial(self._score, own, {name: interface})
            first = name == self.job.names[0]
            return self._per(self._config.score.batch, work, memory=first) - shared

        one, most = row(), max(self._config.score.steps)
        many = interface.iterative and most > 1
        evaluation = (row(steps=most) - one) * (1 / (most - 1)) if many else Work()
        if not interface.stochastic:
            return Scoring(fixed=Work(), evaluation=evaluation, recovery=one - evaluation)
        recovery = row(steps=0, signal=TRUE)
        if interface.redraws:
            recovery += evaluation
        return Scoring(fixed=one - evaluation - recovery, evaluation=evaluation, recovery=recovery)

    def _trained(self, phase: str) -> list[str]:
        budget, kinds = self._config.budget, {n: INTERFACES.get(n) for n in self.job.names}
        return [name for name, kind in kinds.items() if budget.plan(kind.phases).get(phase)]

    def _statistics(self) -> tuple[Work, Work, SpanStatistics]:
        a, b = self.job.ends[0]
        found: list[SpanStatistics] = []

        def collect(windows: int, passes: int = 1) -> None:
            batches = (self._batch(windows, layers=(a, b)) for _ in range(passes))
            found.append(SpanStatistics.collect(batches, a, b))

        one = self._per(STATISTICS_BATCH, collect, memory=True)
        two = self._per(STATISTICS_BATCH, partial(collect, passes=2))
        count = min(STATISTICS_BATCH, self.windows)
        return two - one, (2 * one - two) * count, found[-1]

    def _reconstruction(self, interface: Interface) -> Work:
        score = self._config.score

        def rebuild(count: int) -> None:
            text, own, steps = self.text, range(count), score.steps[-1]
            bridgeability(interface, text, windows=own, batch=count, steps=steps)
            if has_bound(interface):
                snr, draws = score.bound_snr, score.bound_draws
                block_bound(interface, text, windows=own, batch=count, snr=snr, draws=draws)

        return self._per(score.batch, rebuild)

    def _read(self, windows: int) -> object:
        return self._batch(windows, logits=True)

    def _batch(self, windows: int, *, layers: Iterable[int] = (), logits: bool = False) -> Batch:
        chosen = self.text.batch(range(windows))
        return Batch.of(chosen, self.backbone, layers=layers, logits=logits)

    def _score(
        self, rows: Sequence[Row], interfaces: Mapping[str, Interface], windows: int
    ) -> None:
        ScoreCache(
            data=self.text,
            backbone=self.backbone,
            windows=range(windows),
            batch=windows,
            block=self._config.block_size,
        ).score(rows, interfaces)

    def _per(
        self,
        most: int,
        work: Callable[[int], object],
        *,
        autocast: bool = False,
        memory: bool = False,
    ) -> Work:
        """Return what ``work`` takes for one window, of as many as a pass has, at ``most``."""
        count, device = min(most, self.windows), self.backbone.device.type
        enabled = autocast and self._config.train.autocast
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            done = self.timer.time(
                partial(work, count), tokens=count * self.text.window, memory=memory
            )
        each = done * (1 / count)
        passes = {name: getattr(done, name) / most for name in ("operations", "waits")}
        return replace(each, peak=done.peak / count, **passes)  # a pass of more has no more of them


def _learn(state: TrainState, batch: Batch, step: Step, windows: int) -> None:
    del windows  # the batch has so many
    state.learn(batch, step)


def _update(state: TrainState) -> None:
    for parameter in state.parameters:
        parameter.grad = torch.zeros_like(parameter)
    state.update(0, 1000)


def _held(state: TrainState) -> Iterator[Tensor]:
    """Yield weights, gradients, averages and the optimisers' state."""
    yield from (*state.interface.parameters(), *state.parameters, *state.average)
    for optimizer in state.optimizers:
        for own in optimizer.state.values():
            yield from (value for value in own.values() if isinstance(value, torch.Tensor))


def bytes_of(tensors: Iterable[Tensor]) -> float:
    """Return the bytes of some tensors."""
    return float(sum(own.numel() * own.element_size() for own in tensors))
