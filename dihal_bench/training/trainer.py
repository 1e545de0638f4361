"""Training by gradient: several interfaces side by side, on one teacher pass per batch."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from dihal_bench import distributed
from dihal_bench.errors import UserError
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.part import sharing
from dihal_bench.interfaces.settings import Step
from dihal_bench.progress import progress
from dihal_bench.training.checkpoint import load_training, save_training
from dihal_bench.training.ledger import Meter, Spent, Stopwatch, count_flops
from dihal_bench.training.shares import Shares, add_gradients, add_losses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from dihal_bench.backbone.model import Backbone
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.text.tokens import PackedTokens, Windows

_CHECKPOINT_SECONDS = 30.0
_CURVE_POINTS = 200
_NAMED = 3  # trainees whose losses are shown one by one
_COUNTED_STEPS = 16  # whose FLOPs are counted: they may differ, as where passes vary in number
SHARES = (0.25, 0.5)  # of a phase's steps, after which weights are kept apart


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How trunks are trained.

    Attributes:
        batch: windows per step.
        micro: windows per pass, at most; the gradients of a step's passes are added.
        optimizer: "muon" (matrices by Muon, the rest by AdamW) or "adamw" (everything).
        lr: peak learning rate of AdamW.
        muon_lr: peak learning rate of Muon.
        weight_decay: decoupled, on matrices.
        warmup: share of the steps with a rising rate; afterwards a cosine falls to ``final`` of it.
        final: last learning rate over the peak.
        clip: largest gradient norm.
        ema: decay of the averaged weights, which are what is kept.
        autocast: compute in bfloat16 where that is safe; weights stay in float32.
    """

    batch: int = 8
    micro: int = 8
    optimizer: str = "muon"
    lr: float = 6e-3
    muon_lr: float = 0.04
    weight_decay: float = 0.01
    warmup: float = 0.05
    final: float = 0.02
    clip: float = 1.0
    ema: float = 0.98
    autocast: bool = True

    def __post_init__(self) -> None:
        if self.optimizer not in _OPTIMIZERS:
            known = ", ".join(_OPTIMIZERS)
            raise UserError(f"train.optimizer={self.optimizer} is unknown; choose one of {known}.")


class Trainee:
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
        self.spent = Spent(trainable_parameters=sum(p.numel() for p in self.parameters))
        self.curve: list[dict[str, float]] = []

    @property
    def distils(self) -> bool:
        """Whether the phase asks for the teacher's probabilities."""
        return self.phase == "diffusion" and self.interface.config.losses.kd > 0

    def learn(self, batch: Batch, step: Step, share: float = 1.0) -> dict[str, float]:
        """Add the gradients of a part of the step's windows; return its losses.

        Args:
            batch: the windows.
            step: the step they belong to.
            share: of the step's windows that these are; the gradients' weight.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        device = batch.tokens.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.config.autocast):
            losses = self.interface.losses(batch, step)
            total = self.interface.total(losses)
        values = {name: float(value.detach()) for name, value in {**losses, "total": total}.items()}
        if not all(math.isfinite(v) for v in values.values()):
            raise FloatingPointError(str(values))
        torch.autograd.backward(share * total)
        return values

    def update(self, step: int, steps: int) -> None:
        """Take the optimiser step ``step`` of ``steps`` on the gradients of all processes.

        Raises:
            FloatingPointError: the gradient is not finite; the weights are as before.
        """
        add_gradients(self.parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip))
        if not math.isfinite(norm):
            raise FloatingPointError(f"gradient norm {norm}")
        scale = learning_rate(step, steps, self.config)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._follow(min(self.config.ema, (1 + step) / (10 + step)))

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
        for average, parameter in zip(self.average, self.parameters, strict=True):
            average.lerp_(parameter, 1 - decay)


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Return the factor on the peak rate at ``step`` (from 0): linear warm-up, then a cosine."""
    rising = max(1, round(config.warmup * steps))
    if step < rising:
        return (step + 1) / rising
    progress_made = (step - rising) / max(1, steps - rising)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress_made))


def train(
    trainees: Sequence[Trainee],
    data: PackedTokens,
    backbone: Backbone,
    *,
    tokens: int,
    seed: int,
    checkpoint: Path,
    keep: Callable[[str, Interface, float], None] = lambda name, interface, share: None,
) -> None:
    """Train for ``tokens`` tokens, from the checkpoint where there is one, and adopt the averages.

    The trainees are in one phase. ``keep`` is lent each with its averaged weights when a share of
    ``SHARES`` of the steps is done. Several processes share the windows of every step, take the
    same steps, and hold the same weights; the main one writes.

    Raises:
        UserError: the loss became NaN or infinite; the last good checkpoint stays. Or the windows
            of a step cannot be shared by so many processes.
    """
    config = trainees[0].config
    per_step = config.batch * data.window
    steps = max(1, round(tokens / per_step))
    phase = trainees[0].phase
    shares = Shares.of(config)
    for trainee in trainees:
        distributed.copy_main(*trainee.interface.state_dict().values(), *trainee.average)
    start = load_training(checkpoint, trainees)
    clock = Stopwatch()
    with (
        progress(f"train {phase}", steps * per_step, unit="tokens") as bar,
        sharing(shares.part),
    ):
        bar.update(start * per_step)
        for step in range(start, steps):
            parts = (
                data.draw(seed, step * config.batch + places.start, len(places))
                for places in shares.passes
            )
            now = Step(index=step, of=steps, phase=phase)
            losses = _step(trainees, backbone, parts, now, checkpoint, tokens=per_step)
            if step % max(1, steps // _CURVE_POINTS) == 0 or step == steps - 1:
                for trainee in trainees:
                    point = {"tokens": (step + 1) * per_step, **losses[trainee.name]}
                    trainee.curve.append(point)
            bar.update(per_step)
            bar.note(_note({name: own["total"] for name, own in losses.items()}))
            for share in SHARES:
                if step + 1 == max(1, round(share * steps)):
                    _lend(trainees, keep, share)
            due = clock.seconds > _CHECKPOINT_SECONDS or step == steps - 1
            if due and distributed.writes():
                save_training(checkpoint, trainees, step + 1)
                clock = Stopwatch()
    for trainee in trainees:
        trainee.adopt_average()


def _note(totals: Mapping[str, float]) -> str:
    """Return the losses in few words."""
    if len(totals) > _NAMED:
        least, most = min(totals.values()), max(totals.values())
        return f"{len(totals)} of them, losses {least:.3f} to {most:.3f}"
    return " ".join(f"{name} {total:.3f}" for name, total in totals.items())


def _lend(
    trainees: Sequence[Trainee], keep: Callable[[str, Interface, float], None], share: float
) -> None:
    for trainee in trainees:
        with trainee.averaged() as interface:
            keep(trainee.name, interface, share)


def _step(
    trainees: Sequence[Trainee],
    backbone: Backbone,
    parts: Iterable[Windows],
    step: Step,
    checkpoint: Path,
    *,
    tokens: int,
) -> dict[str, dict[str, float]]:
    """Take one step of every trainee on the same windows; return their losses by name."""
    config = trainees[0].config
    layers = {layer for trainee in trainees for layer in trainee.interface.layers}
    logits = any(trainee.distils for trainee in trainees)
    counts = trainees[0].spent.steps < _COUNTED_STEPS
    teacher, own = Meter(), {t.name: Meter(flops=counts) for t in trainees}
    lessons = dict.fromkeys(own, 0.0)  # FLOPs of the teacher's passes, had each trainee its own
    losses: dict[str, dict[str, float]] = {trainee.name: {} for trainee in trainees}
    for windows in parts:
        share = len(windows.tokens) / config.batch
        with torch.autocast(backbone.device.type, torch.bfloat16, enabled=config.autocast):
            batch = teacher.run(partial(Batch.of, windows, backbone, layers=layers, logits=logits))
        if counts:  # counted apart: a backbone's very first pass also checks itself
            for trainee in trainees:
                lessons[trainee.name] += _lesson(trainee, windows, backbone)
        for trainee in trainees:
            with _stops(trainee, step.index, checkpoint):
                found = own[trainee.name].run(partial(trainee.learn, batch, step, share))
            sums = losses[trainee.name]
            sums.update({k: sums.get(k, 0.0) + share * v for k, v in found.items()})
    for trainee in trainees:
        meter = own[trainee.name]
        learnt = meter.flops + lessons[trainee.name]
        meter.flops = add_losses(losses[trainee.name], learnt)  # the update costs once, not by each
        with _stops(trainee, step.index, checkpoint):
            meter.run(partial(trainee.update, step.index, step.of))
        trainee.spent.add(tokens, teacher, meter)
    return losses


def _lesson(trainee: Trainee, windows: Windows, backbone: Backbone) -> float:
    """Return the FLOPs of the teacher's pass as far as one trainee needs it."""
    layers, logits = set(trainee.interface.layers), trainee.distils
    return count_flops(partial(Batch.of, windows, backbone, layers=layers, logits=logits))


@contextmanager
def _stops(trainee: Trainee, step: int, checkpoint: Path) -> Iterator[None]:
    """Turn a loss or gradient that is not finite into a clear stop."""
    try:
        yield
    except FloatingPointError as error:
        kept = (
            f"the last good checkpoint is {checkpoint}"
            if checkpoint.exists()
            else "nothing was saved yet"
        )
        raise UserError(
            f"the loss of {trainee.name} is not finite at step {step} ({error}); {kept}. "
            "Lower train.lr and train.muon_lr with --set, or set train.autocast=false."
        ) from error


def _adamw(parameters: list[Tensor], lr: float, decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=decay, fused=False)


def _split(parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return [p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim != 2]


def _all_adamw(parameters: Sequence[Tensor], config: TrainConfig) -> list[torch.optim.Optimizer]:
    matrices, others = _split(parameters)
    return [_adamw(matrices, config.lr, config.weight_decay), _adamw(others, config.lr, 0.0)]


def _muon(parameters: Sequence[Tensor], config: TrainConfig) -> list[torch.optim.Optimizer]:
    matrices, others = _split(parameters)
    muon = torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay)
    return [muon, _adamw(others, config.lr, 0.0)]


_OPTIMIZERS = {"muon": _muon, "adamw": _all_adamw}
