"""The variational bound of a block: an upper limit of its NLL, for signals that bear tokens.

Kingma et al. (Variational diffusion models, arXiv 2107.00630), eq. 13-15, in the discrete levels of
the process itself, given the clean prefix c of the block. From level r on,

    -log p(x | c) <= KL(q(z_T | x) || N(0, I)) + E[-log p(x | z_r, c)]
                     + sum_{t > r} (SNR(t-1) - SNR(t)) / 2 E|x0 - x0hat(z_t, c)|^2,

for any r: below it, recovery decodes the one-step estimate. The sum is estimated with levels drawn
in proportion to their weight, the same for all places of a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dihal_bench.data.tokens import Text
    from dihal_bench.diffusion.layout import Layout
    from dihal_bench.evaluation.intervals import Array
    from dihal_bench.interfaces.base import Interface

_DRAWS = 1 << 29  # no chain and no training step has these numbers


@torch.no_grad()
def block_bound(
    interface: Interface,
    data: Text,
    *,
    windows: Sequence[int],
    batch: int,
    snr: float,
    draws: int,
) -> tuple[Array, Array]:
    """Return sums per document of the bound (nats) and of the tokens that it is a bound for.

    The windows are dealt to all processes.

    Args:
        interface: of the sequence regime; its signal bears tokens.
        data: the evaluation text.
        windows: indices of the windows.
        batch: windows per pass.
        snr: signal-to-noise ratio below which levels belong to the diffusion; the rest is decoded.
        draws: noise levels per block.

    Raises:
        UserError: the interface has no such bound.
    """
    if not (interface.bears_tokens and interface.likelihood and interface.stochastic):
        raise UserError(
            "a variational bound of blocks needs a stochastic interface whose signal bears tokens "
            "and whose recovery is a distribution."
        )
    documents = np.unique(data.batch(list(windows)).documents)
    nats, tokens = np.zeros(len(documents)), np.zeros(len(documents))
    with progress("bound", len(windows), unit="windows") as bar:
        for lo, counts in distributed.turns(range(0, len(windows), batch)):
            chosen = data.batch(windows[lo : lo + batch])
            shared = Batch.of(chosen, interface.backbone, layers=interface.layers)
            places = (shared.followed & counts).cpu().numpy()
            index = np.searchsorted(documents, chosen.documents[places])
            found = _bound(interface, shared, interface.layout(shared), snr, draws)
            values = found.double().cpu().numpy()[places]
            nats += np.bincount(index, values, len(documents))
            tokens += np.bincount(index, minlength=len(documents))
            bar.update(len(chosen.tokens) * distributed.size())
    nats = np.sum(distributed.gather([nats]), axis=0)
    tokens = np.sum(distributed.gather([tokens]), axis=0)
    return nats, tokens


def _bound(interface: Interface, batch: Batch, layout: Layout, snr: float, draws: int) -> Tensor:
    """Return each place's part of its block's bound, float64 [B, T]."""
    assert interface.trunk is not None
    process, x0 = interface.diffusion, interface.clean(batch)
    ratios = (process.alpha / process.sigma) ** 2  # float64 [levels], falling
    least = int((ratios > snr).sum())
    weights = (ratios[:-1] - ratios[1:])[least:] / 2  # of levels least + 1, ...
    shares = (weights.cumsum(0) / weights.sum()).to(x0.device)
    context = interface.trunk.encode(interface.condition(batch), layout)

    def estimate(t: Tensor, draw: int) -> Tensor:
        eps = batch.normal(interface.noise, x0.shape[-1], draw=draw)
        z = process.corrupt(x0, eps, t)
        guess = interface.estimate(z, t, context)
        if process.config.self_conditioning:
            guess = interface.estimate(z, t, context, guess)
        return guess

    total = _prior(process, x0)
    bottom = torch.full_like(batch.tokens, least)
    logits = interface.recover(estimate(bottom, _DRAWS), batch)
    target = batch.following(batch.tokens)
    total += F.cross_entropy(logits.transpose(1, 2).double(), target, reduction="none")
    for draw in range(1, draws + 1):
        uniform = batch.uniform(interface.noise, draw=_DRAWS + draw)
        place = (layout.at_start(uniform) + draw - 1) / draws  # stratified
        t = torch.searchsorted(shares, place.contiguous()).clamp(max=len(shares) - 1) + least + 1
        error = (estimate(t, _DRAWS + draw) - x0).double().square().sum(-1)
        total += float(weights.sum()) / draws * error
    return total


def _prior(process: Any, x0: Tensor) -> Tensor:
    """Return KL(q(z_T | x) || N(0, I)) per place, float64 [B, T]; 0 at zero terminal SNR."""
    alpha, variance = float(process.alpha[-1]), float(process.sigma[-1]) ** 2
    spread = x0.shape[-1] * (variance - 1 - np.log(variance))
    total: Tensor = 0.5 * (alpha**2 * x0.double().square().sum(-1) + spread)
    return total
