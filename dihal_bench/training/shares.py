"""Who trains on what: the windows of a step are shared by the processes, their gradients added.

One process takes a step in passes of ``train.micro`` windows and weighs each by its share of them.
Several processes are dealt these passes whole, or, where there are too few to go round, share each
with their neighbours. Every sum is that of one process, but for the order of its terms: also that
of a mean over places (``losses.mean_over``), of which the processes of a pass have different
numbers. Losses that are made otherwise are averaged over these processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.interfaces.part import MicrobatchShard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dihal_bench.training.config import TrainConfig
    from dihal_bench.training.ledger import Meter


@dataclass(frozen=True)
class MicrobatchPlan:
    """What this process does of every step.

    Attributes:
        passes: places in the step's batch, pass by pass.
        part: whom it shares them with; None: nobody.
    """

    passes: tuple[range, ...]
    part: MicrobatchShard | None

    @classmethod
    def of(cls, config: TrainConfig) -> MicrobatchPlan:
        """Deal the windows of a step to the processes; all of them must ask at the same time.

        Raises:
            UserError: they do not go round.
        """
        sharers = check_shares(config)
        passes = passes_of(config, distributed.rank(), distributed.size(), sharers)
        return cls(passes, MicrobatchShard.of(sharers))


def check_shares(config: TrainConfig) -> int:
    """Return how many processes share a pass; 1: each has passes of its own.

    Raises:
        UserError: the windows of a step, or of a pass, cannot be shared in equal numbers.
    """
    size = distributed.size()
    if config.batch % size:
        raise UserError(
            f"train.batch={config.batch} cannot be shared by {size} processes; give a multiple of "
            f"{size} with --set train.batch, or start fewer."
        )
    passes = _passes(config)
    sharers = size // math.gcd(len(passes), size)
    if any(len(one) % sharers for one in passes):
        raise UserError(
            f"train.micro={config.micro} cuts train.batch={config.batch} into passes that {size} "
            "processes cannot share; give a --set train.micro that divides train.batch."
        )
    return sharers


def passes_of(config: TrainConfig, rank: int, size: int, sharers: int) -> tuple[range, ...]:
    """Return the places in a step's batch that a process of several works on, pass by pass.

    Args:
        config: its ``batch`` and ``micro`` decide.
        rank: of the process.
        size: how many processes there are.
        sharers: how many share a pass.
    """
    team, place = divmod(rank, sharers)
    mine = _passes(config)[team :: size // sharers]
    return tuple(
        one[len(one) * place // sharers : len(one) * (place + 1) // sharers] for one in mine
    )


def _passes(config: TrainConfig) -> list[range]:
    """Return the passes that one process alone would make."""
    return [
        range(lo, min(lo + config.micro, config.batch))
        for lo in range(0, config.batch, config.micro)
    ]


@torch.no_grad()
def add_gradients(parameters: Sequence[Tensor]) -> None:
    """Add the gradients of all processes, in one exchange; those that nobody has stay None."""
    if distributed.size() == 1:
        return
    has = [p.new_tensor([float(p.grad is not None)]) for p in parameters]
    own = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    bucket = torch.cat([*has, *own])
    distributed.add_up(bucket)
    somewhere, sums = bucket[: len(has)].tolist(), bucket[len(has) :]
    totals = torch.split(sums, [p.numel() for p in parameters])
    for parameter, found, total in zip(parameters, somewhere, totals, strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype) if found else None


def add_flops(meters: Sequence[Meter]) -> None:
    """Add the FLOPs that the other processes have counted."""
    if distributed.size() == 1:
        return
    sums = torch.tensor([meter.flops for meter in meters], dtype=torch.float64)
    distributed.add_up(sums)
    for meter, flops in zip(meters, sums.tolist(), strict=True):
        meter.flops = flops
