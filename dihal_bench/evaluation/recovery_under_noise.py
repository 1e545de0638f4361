"""Recovery from the true signal, and from the true signal plus noise: what diffusion builds on."""

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
        eps = interface.noise.normal(shared.documents, shared.offsets, x0.shape[-1], draw=_DRAW)
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
