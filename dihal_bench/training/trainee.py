"""One interface in one phase of its training: optimisers, averaged weights, ledger, curve."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from dihal_bench.training.ledger import TrainingCost
from dihal_bench.training.sampling import taught_places
from dihal_bench.training.shares import add_gradients

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from torch import Tensor

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import Step
    from dihal_bench.training.config import TrainConfig


class TrainState:
    """One interface in one phase of its training: optimisers, averaged weights, ledger, curve.

    Until ``adopt_average``, what the phase does not train requires no gradient.
    """

    def __init__(
        self, name: str, interface: Interface, config: TrainConfig, phase: str = "diffusion"
    ):
        self.name = name
        self.interface = interface
        self.config = config
        self.phase = phase
        self._trainable = [p for p in interface.parameters() if p.requires_grad]
        self.parameters = interface.parameters_in(phase)
        interface.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizers = _OPTIMIZERS[config.optimizer](self.parameters, config)
        self.rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.spent = TrainingCost(trainable_parameters=sum(p.numel() for p in self.parameters))
        self.flops: dict[Hashable, float] = {}  # of a step, by its kind
        self.curve: list[dict[str, float]] = []

    @property
    def distils(self) -> bool:
        """Whether the phase asks for the teacher's probabilities."""
        return self.phase == "diffusion" and self.interface.config.losses.kd > 0

    def taught(self, step: Step, seed: int) -> tuple[int, ...] | None:
        """Return the places in a step's batch of the windows with token losses; None: all.

        Args:
            step: of the phase.
            seed: of the data order.
        """
        weights = self.interface.config.losses
        if self.phase != "diffusion" or not (weights.ce or weights.kd):
            return None
        batch = self.config.batch
        return taught_places(weights.token_share, batch, seed=seed, step=step.index)

    def learn(self, batch: Batch, step: Step, share: float = 1.0) -> dict[str, Tensor]:
        """Add the gradients of a part of the step's windows; return its losses, which may be NaN.

        Args:
            batch: the windows.
            step: the step they belong to, and which of them have token losses.
            share: of the step's windows that these are; the gradients' weight.
        """
        device = batch.tokens.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.config.autocast):
            losses = self.interface.losses(batch, step)
            total = self.interface.total(losses)
        torch.autograd.backward(share * total)
        return {name: value.detach() for name, value in {**losses, "total": total}.items()}

    def update(self, step: int, steps: int) -> Tensor:
        """Take the optimiser step ``step`` of ``steps`` on the gradients of all processes.

        Returns:
            The norm of the gradient, []. Where it is not finite, no more are the weights.
        """
        add_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        scale = learning_rate(step, steps, self.config)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._follow(min(self.config.ema, (1 + step) / (10 + step)))
        return norm

    @torch.no_grad()
    def adopt_average(self) -> None:
        """Make the averaged weights the interface's own: the phase is over."""
        _copy(self.average, self.parameters)
        for parameter in self._trainable:
            parameter.requires_grad_(True)

    @contextmanager
    def averaged(self) -> Iterator[Interface]:
        """Lend the interface with its averaged weights, in the midst of training."""
        with torch.no_grad():
            kept = [p.detach().clone() for p in self.parameters]
            _copy(self.average, self.parameters)
            yield self.interface
            _copy(kept, self.parameters)

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        torch._foreach_lerp_(self.average, [*self.parameters], 1 - decay)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Return the factor on the peak rate at ``step`` (from 0): linear warm-up, then a cosine."""
    rising = max(1, round(config.warmup * steps))
    if step < rising:
        return (step + 1) / rising
    progress_made = (step - rising) / max(1, steps - rising)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress_made))


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def _split(parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return [p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim != 2]


def _adamw(parameters: list[Tensor], lr: float, decay: float) -> torch.optim.Optimizer:
    fused = any(p.device.type == "cuda" for p in parameters)
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=decay, fused=fused)


def _all_adamw(parameters: Sequence[Tensor], config: TrainConfig) -> list[torch.optim.Optimizer]:
    matrices, others = _split(parameters)
    return [_adamw(matrices, config.lr, config.weight_decay), _adamw(others, config.lr, 0.0)]


def _muon(parameters: Sequence[Tensor], config: TrainConfig) -> list[torch.optim.Optimizer]:
    matrices, others = _split(parameters)
    muon = torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay)
    return [muon, _adamw(others, config.lr, 0.0)]


_OPTIMIZERS = {"muon": _muon, "adamw": _all_adamw}
