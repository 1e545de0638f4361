"""How well a signal is reconstructed: fraction of variance unexplained and raw error."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
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


SIGMAS = tuple(2.0**exponent for exponent in np.arange(-4, 4.5, 0.5))
_DRAW = 1 << 28  # of the noise: no chain has this number


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Recovery from the clean signal and under noise, on held-out text.

    Agreement is the share of places whose most likely token is the next one (signals that bear
    tokens) or the teacher's choice (states).

    Attributes:
        agreement: from the true signal.
        kl: KL(teacher || recovered) from the true signal, nats per token.
        sigmas: standard deviations of Gaussian noise, in units of the signal's.
        agreement_under_noise: per sigma.
        kl_under_noise: per sigma.
        sigma_half: where agreement is half of what it is without noise, interpolated in log sigma;
            None where it never is.
        tokens: places that the figures rest on.
    """

    agreement: float
    kl: float
    sigmas: tuple[float, ...]
    agreement_under_noise: tuple[float, ...]
    kl_under_noise: tuple[float, ...]
    sigma_half: float | None
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


@torch.no_grad()
def oracle(interface: Interface, data: Text, *, windows: Sequence[int], batch: int) -> Oracle:
    """Measure an interface's recovery on the given windows, which are dealt to all processes."""
    levels = (0.0, *SIGMAS)
    right, divergence, count = np.zeros(len(levels)), np.zeros(len(levels)), 0
    for lo, counts in distributed.turns(range(0, len(windows), batch)):
        chosen = data.batch(windows[lo : lo + batch])
        shared = Batch.of(chosen, interface.backbone, layers=interface.layers, logits=True)
        places, x0 = shared.followed & counts, interface.target(shared)
        eps = shared.normal(interface.noise, x0.shape[-1], draw=_DRAW)
        teacher = torch.log_softmax(shared.teacher_logits[places].double(), dim=-1)
        truth = shared.following(shared.tokens)[places]
        best = truth if interface.bears_tokens else teacher.argmax(-1)
        count += len(truth)
        for index, sigma in enumerate(levels):
            logits = interface.recover(x0 + sigma * eps.to(x0.dtype), shared)[places]
            right[index] += float((logits.argmax(-1) == best).sum())
            divergence[index] += float(_divergence(teacher, logits))
    right = np.sum(distributed.gather([right]), axis=0)
    divergence = np.sum(distributed.gather([divergence]), axis=0)
    count = sum(distributed.gather([count]))
    agreement, kl = right / count, divergence / count
    return Oracle(
        agreement=float(agreement[0]),
        kl=float(kl[0]),
        sigmas=SIGMAS,
        agreement_under_noise=tuple(agreement[1:].tolist()),
        kl_under_noise=tuple(kl[1:].tolist()),
        sigma_half=_half(agreement[1:], float(agreement[0]) / 2),
        tokens=count,
    )


def _divergence(teacher: Tensor, logits: Tensor) -> Tensor:
    student = torch.log_softmax(logits.double(), dim=-1)
    return (teacher.exp() * (teacher - student)).sum()


def _half(agreement: np.ndarray[Any, Any], half: float) -> float | None:
    """Return where the falling curve crosses ``half``, linear in log sigma."""
    below = np.nonzero(agreement < half)[0]
    if not len(below) or below[0] == 0:
        return None
    last, first = int(below[0]) - 1, int(below[0])
    share = float((agreement[last] - half) / (agreement[last] - agreement[first]))
    low, high = math.log(SIGMAS[last]), math.log(SIGMAS[first])
    return math.exp(low + share * (high - low))
