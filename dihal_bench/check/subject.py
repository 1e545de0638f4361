"""One interface in one regime, built on the sample in all the states that checks look at."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dihal_bench.check import sample
from dihal_bench.check.lessons import FEW, TrainingProbe, observe, teach
from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.diffusion.schedule import DiffusionConfig
from dihal_bench.evaluation.incremental import rows_as_windows
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import PHASES, InterfaceConfig, LossWeights, Span
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.interfaces.validate import declared

if TYPE_CHECKING:
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone

BLOCK, SEED, STEPS = 4, 7, 3
_LESSONS = 40  # steps
_MIDDLE = sample.BLOCKS // 2


@dataclass
class Subject:
    """What is checked.

    Attributes:
        name: the registered name.
        kind: the interface.
        regime: "causal" or "sequence".
        denoiser: registered name of the trunk.
        denoiser_options: the trunk's own settings; None: its defaults.
        diffusion: the process.
        options: the interface's own settings; None: its defaults.
    """

    name: str
    kind: type[Interface]
    regime: str
    denoiser: str = "transformer"
    denoiser_options: Any = None
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    options: Any = None
    _teachers: dict[torch.dtype, Backbone] = field(default_factory=dict)

    @property
    def span(self) -> Span:
        """(0, N/2] for states, (N/2, N] for signals that bear tokens: as many blocks."""
        a, b = (_MIDDLE, sample.BLOCKS) if self.kind.bears_tokens else (0, _MIDDLE)
        return Span(a=a, b=b, blocks=sample.BLOCKS)

    def new(self, dtype: torch.dtype = torch.float32, *, seed: int = SEED) -> Interface:
        """Return the interface as it is before anything is fitted, on a teacher of that dtype."""
        causal = self.regime == "causal"
        config = InterfaceConfig(
            residual="token-mean" if causal else "none",
            denoiser=DenoiserConfig(
                name=self.denoiser,
                width=16,
                heads=2,
                context_layers=1,
                layers=1,
                options=self.denoiser_options,
            ),
            diffusion=self.diffusion,
            losses=LossWeights(),
            seed=seed,
            block=0 if causal else BLOCK,
            options=self.options,
        )
        if dtype not in self._teachers:
            self._teachers[dtype] = sample.new_teacher(dtype)
        interface = self.kind(self._teachers[dtype], self.span, config)
        declared(interface)
        return interface.eval()

    def fitted(self, dtype: torch.dtype = torch.float32, *, seed: int = SEED) -> Interface:
        """Return the interface with its closed-form parts, untrained."""
        interface = self.new(dtype, seed=seed)
        self.fit(interface)
        return interface

    def fit(self, interface: Interface) -> None:
        """Estimate the closed-form parts."""
        first, last = interface.layers[0], interface.layers[-1]
        batches = (self.batch(interface, range(lo, lo + 16)) for lo in range(0, sample.WINDOWS, 16))
        interface.fit(SpanStatistics.collect(batches, first, last))

    def settle(self, interface: Interface) -> None:
        """Estimate what depends on the recovery."""
        interface.settle([self.batch(interface, range(16))])

    @cached_property
    def fresh(self) -> Interface:
        """Fitted and untrained, float32; nobody changes it."""
        return self.fitted()

    @cached_property
    def redrawn(self) -> Interface:
        """``redraw()``; nobody changes it."""
        return self.redraw()

    def redraw(self, *, seed: int = SEED, dtype: torch.dtype = torch.float64) -> Interface:
        """Return it in float64, every parameter drawn anew: no output that starts at zero hides.

        The parameters are the same for all seeds; noise is not. On a teacher of another dtype its
        weights have the type that they are trained in.
        """
        interface = self.fitted(dtype, seed=seed)
        interface = interface.double() if dtype == torch.float64 else interface
        generator = torch.Generator().manual_seed(SEED)
        with torch.no_grad():
            for parameter in interface.parameters():
                scale = parameter.shape[-1] ** -0.5 if parameter.ndim else 1.0
                parameter.normal_(std=scale, generator=generator)
        if "recovery" in interface.phases:
            self.settle(interface)
        return interface

    @cached_property
    def lessons(self) -> list[TrainingProbe]:
        """A few steps of every phase, observed, on a teacher of their own: some would change it."""
        found = []
        interface = replace(self, _teachers={}).fitted()
        for phase in self.phases:
            found.append(observe(interface, phase))
            if phase == "recovery":
                self.settle(interface)
        return found

    @cached_property
    def taught(self) -> Interface:
        """Trained in every phase, the first one until a recovery that hears shows it; float32."""
        interface = self.fitted()
        for index, phase in enumerate(self.phases):
            teach(interface, phase, _LESSONS if index == 0 else FEW)
            if phase == "recovery":
                self.settle(interface)
        return interface

    @property
    def phases(self) -> list[str]:
        """The phases that it declares, in order."""
        return [phase for phase in PHASES if phase in self.kind.phases]

    @cached_property
    def piecewise(self) -> Interface:
        """``redrawn`` on a teacher that is fed through caches."""
        whole = self.redrawn.backbone
        return copy.deepcopy(self.redrawn, {id(whole): sample.PieceByPiece(whole)})

    def batch(self, interface: Interface, windows: range) -> Batch:
        """Return windows of the sample."""
        return Batch.of(sample.text().batch(windows), interface.backbone)

    def rows(self, interface: Interface, tokens: Tensor, documents: Tensor | None = None) -> Batch:
        """Return rows [B, T] of one document each."""
        numbers = torch.arange(len(tokens)) if documents is None else documents
        return Batch.of(rows_as_windows(tokens, numbers), interface.backbone)


@torch.no_grad()
def chain(interface: Interface, batch: Batch, *, steps: int = STEPS, shift: int = 0) -> Tensor:
    """Return the signal [B, T, D] of the first chain."""
    layout = interface.layout(batch, shift)
    return next(iter(interface.chains(batch, steps=steps, count=1, layout=layout)))


@torch.no_grad()
def chain_logits(
    interface: Interface,
    batch: Batch,
    *,
    steps: int = STEPS,
    shift: int = 0,
    current: Tensor | None = None,
) -> Tensor:
    """Return next-token logits [B, T, V] of the first chain."""
    layout = interface.layout(batch, shift)
    samples = interface.samples(batch, steps=steps, count=1, layout=layout, current=current)
    return interface.recover(next(iter(samples)), batch)


PASS, FAIL, SKIPPED = "pass", "FAIL", "n/a"


@dataclass(frozen=True)
class Outcome:
    """Of one check of one interface in one regime.

    Attributes:
        verdict: "pass", "FAIL", or "n/a" where there is nothing to check.
        sentence: on failure what was expected of which method, and what came; else empty, or why
            there is nothing to check.
    """

    verdict: str = PASS
    sentence: str = ""


def fail(sentence: str) -> Outcome:
    """Return a failure."""
    return Outcome(FAIL, sentence)


def skip(reason: str) -> Outcome:
    """Return that there is nothing to check."""
    return Outcome(SKIPPED, reason)


PASSED = Outcome()
