"""How fast everything is here, beside what it could be and what others do: the table of `speed`."""

from __future__ import annotations

import datetime
import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dihal_bench.core import environment
from dihal_bench.core.progress import progress, say
from dihal_bench.core.registry import DENOISERS
from dihal_bench.evaluation.generation import Choice, decode, generate
from dihal_bench.evaluation.incremental import TeacherDecoder
from dihal_bench.interfaces.hidden import HiddenSpace
from dihal_bench.interfaces.settings import Step
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.cost_estimate import Rater, cost_of, locating
from dihal_bench.runs.rates import Bench, at_layer
from dihal_bench.runs.references import fine_tuning, generated, obvious
from dihal_bench.runs.timing import Timer, Work, product_speed, stream_speed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.runs.rates import PhaseRates

BATCHES = (1, 8, 32)  # rows that are generated together
_PROMPT, _NEW = 8, 8  # tokens


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """One line of the table.

    Attributes:
        part: of a run.
        what: is timed.
        reference: whether it is what others do, to compare with.
        seconds: of a step, of what is generated, or of all of a part that a run does once.
        tokens: that it treats; those of a training step count once, whoever learns from them.
        flops: of its products.
        ceiling: FLOP/s of a matrix product in its arithmetic.
        least: seconds that it takes at least: its products at the ceiling, or the weights read.
        waits: times that the host waits for the device: in a training step, or for a token.
        peak: bytes of tensors, at most.
    """

    part: str
    what: str
    reference: bool = False
    seconds: float
    tokens: float
    flops: float
    ceiling: float
    least: float
    waits: float | None = None
    peak: float | None = None

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds

    @property
    def speed(self) -> float:
        """FLOP/s."""
        return self.flops / self.seconds

    @property
    def of_ceiling(self) -> float:
        """Share of the ceiling."""
        return self.speed / self.ceiling

    @property
    def of_floor(self) -> float:
        """Share of the time that it has to take."""
        return self.least / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        rates = {name: getattr(self, name) for name in ("rate", "speed", "of_ceiling", "of_floor")}
        return {**asdict(self), **rates}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """All lines, and what they are of.

    Attributes:
        rows: of the table.
        facts: backbone, layer, window, batch, arithmetic, machine, date.
    """

    rows: tuple[SpeedRow, ...]
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"facts": self.facts, "rows": [row.to_dict() for row in self.rows]}


def speed(config: RunConfig, timer: Timer | None = None) -> Speed:
    """Measure the parts of a run, and the references, on random text in this process.

    Args:
        config: of the run.
        timer: by default that of the device.

    Raises:
        UserError: the configuration cannot be run.
    """
    job = RunContext(config, Path(), say)
    job.check_span()
    return _Measured(at_layer(job), timer or Timer.on(job.inputs.device, counts=True)).speed()


class _Measured:
    """What is measured, and against which ceilings."""

    def __init__(self, job: RunContext, timer: Timer):
        self.job, self.timer, self.config = job, timer, job.config
        self.bench = Bench(job, timer)
        self.rater = Rater([job], counts=timer.counts)
        self.backbone, device = job.inputs.backbone, job.inputs.device
        wide = self.backbone.model.dtype
        self.trains = torch.bfloat16 if self.config.train.autocast else wide
        dtypes = dict.fromkeys([self.trains, wide])
        self.ceilings = {dtype: product_speed(device, dtype, timer.clock) for dtype in dtypes}
        self.stream = stream_speed(device, timer.clock)
        self.weights = sum(p.numel() * p.element_size() for p in self.backbone.model.parameters())

    def speed(self) -> Speed:
        parts = (self._reading, self._training, self._evaluating, self._generating)
        rows: list[SpeedRow] = []
        with progress("speed", None, unit="rows") as bar:
            for part in parts:
                for row in part():
                    rows.append(row)
                    bar.update()
                    bar.note(f"{row.part}: {row.what}")
        return Speed(rows=tuple(rows), facts=self._facts())

    def _facts(self) -> dict[str, Any]:
        info, config = self.backbone.info, self.config
        return {
            "backbone": info.name,
            "parameters": info.parameters,
            "layer": self.job.span(self.job.names[0]).b,
            "window": config.text.window,
            "batch": config.train.batch,
            "micro": config.train.micro,
            "timed_windows": self.bench.windows,
            "dtype": config.dtype,
            "autocast": config.train.autocast,
            "ceilings": {str(k).removeprefix("torch."): v for k, v in self.ceilings.items()},
            "bandwidth": self.stream,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            **environment.describe(device=config.device, seed=config.seed),
        }

    def _row(self, part: str, what: str, work: Work, **more: Any) -> SpeedRow:
        ceiling = self.ceilings[more.pop("dtype", self.backbone.model.dtype)]
        bound = {"least": work.flops / ceiling, **more}
        return SpeedRow(
            part=part,
            what=what,
            seconds=work.seconds,
            tokens=work.tokens,
            flops=work.flops,
            ceiling=ceiling,
            peak=work.peak or None,
            **bound,
        )

    def _reading(self) -> Iterator[SpeedRow]:
        yield self._row("reading", "teacher, to its logits", self.bench.reading())
        teacher = self.bench.reading(autocast=True)
        if self.config.train.autocast:
            yield self._row("reading", "teacher, autocast", teacher, dtype=self.trains)
        if self.job.locates:
            located = locating(self.job, counts=True).parts["locate"]
            under = self.trains if self.job.locates_under_autocast else self.backbone.model.dtype
            yield self._row("locating", "all candidate layers", located, dtype=under)

    def _training(self) -> Iterator[SpeedRow]:
        rates, _ = self.rater.of(self.job)
        for phase, own in rates.phases.items():
            for name in own.learn:
                yield self._step(own, name, phase)
        for denoiser in self._denoisers():
            other = replace(self.config.denoiser, name=denoiser, options=None)
            config = replace(self.config, denoiser=other)
            job = RunContext(config, Path(), inputs=self.job.inputs)
            bench, name = Bench(job, self.timer), job.names[0]
            trained = bench.phase("diffusion", {name: bench.interface(name)})
            yield self._step(trained, name, "diffusion", denoiser)
        yield from self._references()

    def _denoisers(self) -> list[str]:
        own, first = self.config.denoiser.name, self.bench.interface(self.job.names[0])
        usable = [n for n in DENOISERS.names() if self.config.regime in DENOISERS.get(n).regimes]
        return [name for name in usable if name != own] if first.trunk is not None else []

    def _step(self, rates: PhaseRates, name: str, phase: str, denoiser: str = "") -> SpeedRow:
        batch, learn = self.config.train.batch, rates.learn[name]
        work = batch * (rates.teacher + learn) + rates.update[name]
        peak = min(batch, self.config.train.micro) * (rates.teacher.peak + learn.peak)
        work = replace(work, tokens=batch * self.config.text.window, peak=peak)
        what = f"{name}: {phase}{f', {denoiser}' if denoiser else ''}"
        return self._row("training step", what, work, dtype=self.trains, waits=work.waits)

    def _references(self) -> Iterator[SpeedRow]:
        train, name = self.config.train, self.job.names[0]
        micro = min(train.batch, train.micro)
        count = min(micro, self.bench.windows)
        windows = self.bench.text.batch(range(count))

        def step(what: str, learn: Callable[[], object], update: Work, **more: Any) -> SpeedRow:
            done = self.timer.time(learn, memory=True)
            whole = done * (train.batch / count) + update
            waits = done.waits * math.ceil(train.batch / micro) + update.waits
            tokens, peak = train.batch * self.config.text.window, done.peak * micro / count
            work = replace(whole, tokens=tokens, peak=peak)
            return self._row("training step", what, work, waits=waits, reference=True, **more)

        learn, update = fine_tuning(self.backbone, windows, autocast=train.autocast)
        learn()
        what = "transformers: all weights, AdamW"
        yield step(what, learn, self.timer.time(update), dtype=self.trains)
        interface = self.bench.interface(name)
        states = isinstance(interface, HiddenSpace) and interface.trunk is not None
        if states and not self.config.block_size:
            now = Step(index=0, of=1000, phase="diffusion")
            plain = obvious(interface, windows, now)
            yield step(f"{name}: the obvious way, no update", plain, Work())

    def _evaluating(self) -> Iterator[SpeedRow]:
        cost = cost_of([[self.job]], self.rater)
        tokens, count = self.config.score.tokens, f"{len(self.job.names)} interfaces"
        told = {"gate": count, "scoring": count, "recovery": f"{self.job.names[0]}, true signals"}
        for name, what in told.items():
            work = replace(cost.parts[name], tokens=tokens, peak=0.0)
            yield self._row(name, f"{what}, per scored token", work)

    def _generating(self) -> Iterator[SpeedRow]:
        interface = self.bench.interface(self.job.names[0])
        steps = max(self.config.score.steps)
        for rows in BATCHES:
            prompts = self._prompts(rows)
            text = partial(generate, interface, prompts, new=_NEW, steps=steps)
            yield self._written(f"{self.job.names[0]} S={steps}", rows, text)
            yield self._written("teacher", rows, partial(self._teacher, prompts))
            plain = generated(self.backbone, prompts, _NEW)
            yield self._written("transformers' generate", rows, plain, reference=True)

    def _prompts(self, rows: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (rows, _PROMPT)
        drawn = torch.randint(self.backbone.vocab_size, shape, generator=generator)
        return drawn.to(self.backbone.device)

    def _teacher(self, prompts: Tensor) -> Tensor:
        documents, choice = torch.arange(len(prompts), device=prompts.device), Choice()

        def choose(logits: Tensor, offset: int) -> Tensor:
            return choice.draw(logits, documents, offset)

        return decode(TeacherDecoder(self.backbone), prompts, choose, new=_NEW)

    def _written(
        self, what: str, rows: int, write: Callable[[], object], *, reference: bool = False
    ) -> SpeedRow:
        with torch.no_grad():
            work = self.timer.time(write, tokens=rows * _NEW, memory=True)
        products = work.flops / self.ceilings[self.backbone.model.dtype]
        least = max(products, _NEW * self.weights / self.stream)
        return self._row(
            "generation",
            f"{what}, batch {rows}",
            work,
            least=least,
            waits=work.waits / _NEW,
            reference=reference,
        )
