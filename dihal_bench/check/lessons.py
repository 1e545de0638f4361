"""A few steps of training on the sample by the run's own trainer, and what can be seen of them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dihal_bench.check import sample
from dihal_bench.training.config import TrainConfig
from dihal_bench.training.ledger import count_flops
from dihal_bench.training.trainee import TrainState
from dihal_bench.training.trainer import train

if TYPE_CHECKING:
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.training.ledger import TrainingCost

TRAINING = TrainConfig(batch=4, autocast=False)
FEW = 3  # steps
_SEED = 3


@dataclass(frozen=True, kw_only=True)
class TrainingProbe:
    """A few steps of one phase.

    Attributes:
        phase: its name.
        declared: names of what the phase says it trains.
        moved: names of the parameters and buffers that changed.
        deaf: names of what it trains that never had a gradient other than zero.
        teacher_moved: whether the backbone changed.
        spent: the ledger's account.
        flops: of the same steps, counted from outside.
    """

    phase: str
    declared: set[str]
    moved: set[str]
    deaf: set[str]
    teacher_moved: bool
    spent: TrainingCost
    flops: float


def teach(interface: Interface, phase: str, steps: int) -> None:
    """Train a phase for so many steps."""
    _train(TrainState("it", interface, TRAINING, phase), steps)


def observe(interface: Interface, phase: str) -> TrainingProbe:
    """Train a few steps and look at everything that they do."""
    before, teacher = _copy(interface), _copy(interface.backbone.model)
    trainee = TrainState("it", interface, TRAINING, phase)
    ids = {id(p) for p in trainee.parameters}
    own = {name: p for name, p in interface.named_parameters() if id(p) in ids}
    heard: set[str] = set()
    for name, parameter in own.items():
        _listen(name, parameter, heard)
    flops = count_flops(lambda: _train(trainee, FEW))
    after, teacher_after = _copy(interface), _copy(interface.backbone.model)
    return TrainingProbe(
        phase=phase,
        declared=set(own),
        moved={name for name, value in before.items() if not torch.equal(value, after[name])},
        deaf=set(own) - heard,
        teacher_moved=any(not torch.equal(v, teacher_after[name]) for name, v in teacher.items()),
        spent=trainee.spent,
        flops=flops,
    )


def _train(trainee: TrainState, steps: int) -> None:
    text = sample.text()
    with tempfile.TemporaryDirectory() as name:
        train(
            [trainee],
            text,
            trainee.interface.backbone,
            tokens=steps * TRAINING.batch * text.window,
            seed=_SEED,
            checkpoint=Path(name) / "training.safetensors",
        )


def _listen(name: str, parameter: Tensor, heard: set[str]) -> None:
    def note(gradient: Tensor) -> None:
        if bool(gradient.any()):
            heard.add(name)

    parameter.register_hook(note)  # type: ignore[no-untyped-call]


def _copy(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers, kept in checkpoints or not."""
    values = {**module.state_dict(), **dict(module.named_buffers())}
    return {name: value.detach().clone() for name, value in values.items()}
