"""How well a signal is reconstructed: fraction of variance unexplained and raw error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from dihal_bench.core import distributed
from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dihal_bench.data.tokens import Text
    from dihal_bench.interfaces.base import Interface


@dataclass(frozen=True, kw_only=True)
class Bridgeability:
    """Reconstruction of the signal on held-out text; document and window starts apart.

    Attributes:
        fvu_mmse: one step from pure noise: squared error over variance, in standardised space.
        fvu_sample: the same of samples of ``steps`` evaluations; a perfect sampler has twice the
            MMSE.
        steps: network evaluations of the samples.
        mse_mmse: mean squared error per dimension of the one-step estimate, standardised space.
        mse_sample: the same of the samples.
        fvu_start: one step, at positions 0 only.
        tokens: positions that the figures rest on.
    """

    fvu_mmse: float
    fvu_sample: float
    steps: int
    mse_mmse: float
    mse_sample: float
    fvu_start: float
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


@torch.no_grad()
def bridgeability(
    interface: Interface, data: Text, *, windows: Sequence[int], batch: int, steps: int
) -> Bridgeability:
    """Measure an interface on the given windows, one chain each at one step and at ``steps``.

    The windows are dealt to all processes.
    """
    error = {1: _Moments(), steps: _Moments()}
    start, truths = _Moments(), _Moments()
    for lo, counts in distributed.turns(range(0, len(windows), batch)):
        chosen = data.batch(windows[lo : lo + batch])
        shared = Batch.of(chosen, interface.backbone, layers=interface.layers)
        truth = interface.signal(interface.target(shared), shared)
        inside = (shared.positions > 0) & counts
        starts = (shared.positions == 0) & counts
        truths.add(truth[inside].double())
        for count, moments in error.items():
            sample = next(iter(interface.chains(shared, steps=count, count=1)))
            guess = interface.signal(sample, shared)
            squared = (guess - truth).double().square().mean(-1, keepdim=True)
            moments.add(squared[inside])
            if count == 1:
                start.add(squared[starts])
    for moments in (*error.values(), start, truths):
        moments.add_others()
    variance = truths.variance
    return Bridgeability(
        fvu_mmse=error[1].mean / variance,
        fvu_sample=error[steps].mean / variance,
        steps=steps,
        mse_mmse=error[1].mean,
        mse_sample=error[steps].mean,
        fvu_start=start.mean / variance,
        tokens=truths.count,
    )


class _Moments:
    """Running mean and variance, each averaged over dimensions, of rows [n, D]."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = self._square = torch.zeros(())

    def add(self, rows: Tensor) -> None:
        self.count += len(rows)
        self._sum = self._sum + rows.sum(0)
        self._square = self._square + rows.square().sum(0)

    def add_others(self) -> None:
        """Add what the other processes have seen, if there are any."""
        if distributed.size() == 1:
            return
        counts, sums, squares = zip(
            *distributed.gather([(self.count, self._sum.cpu(), self._square.cpu())]), strict=True
        )
        self.count, self._sum, self._square = sum(counts), sum(sums), sum(squares)

    @property
    def mean(self) -> float:
        return float((self._sum / self.count).mean())

    @property
    def variance(self) -> float:
        mean = self._sum / self.count
        return float((self._square / self.count - mean.square()).mean())
