"""How well a signal is reconstructed: fraction of variance unexplained and raw error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.text.tokens import PackedTokens


@dataclass(frozen=True, kw_only=True)
class Bridgeability:
    """Reconstruction of the signal on held-out text; document and window starts apart.

    Attributes:
        fvu_mmse: one step from pure noise: squared error over variance, both in standardised space.
        fvu_sample: the same of samples of ``steps`` evaluations (a perfect sampler has twice the MMSE).
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
    interface: Interface, data: PackedTokens, *, windows: Sequence[int], batch: int, steps: int
) -> Bridgeability:
    """Measure an interface on the given windows, one chain each at one step and at ``steps``."""
    error = {1: _Mean(), steps: _Mean()}
    start, spread = _Mean(), _Mean()
    truths = []
    for lo in range(0, len(windows), batch):
        shared = Batch.of(data.batch(windows[lo : lo + batch]), interface.backbone, layers=interface.layers)
        truth = interface.signal(interface.target(shared), shared)
        inside = shared.positions > 0
        truths.append(truth[inside].double())
        for count, mean in error.items():
            guess = interface.signal(next(iter(interface.chains(shared, steps=count, count=1))), shared)
            squared = (guess - truth).double().square().mean(-1)
            mean.add(squared[inside])
            if count == 1:
                start.add(squared[~inside])
    every = torch.cat(truths)
    spread.add((every - every.mean(0)).square().mean(-1))
    return Bridgeability(
        fvu_mmse=error[1].value / spread.value,
        fvu_sample=error[steps].value / spread.value,
        steps=steps,
        mse_mmse=error[1].value,
        mse_sample=error[steps].value,
        fvu_start=start.value / spread.value,
        tokens=len(every),
    )


class _Mean:
    """A running mean."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, values: Tensor) -> None:
        self._sum += float(values.sum())
        self._count += values.numel()

    @property
    def value(self) -> float:
        return self._sum / max(self._count, 1)
