"""How well tokens are recovered from their signals: the true ones, or noised ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.interfaces.batch import Batch


@torch.no_grad()
def recovery_accuracy(interface: Interface, batch: Batch, x0: Tensor | None = None) -> float:
    """Return the share of next tokens that are the most likely ones given their signals.

    Args:
        interface: bears tokens.
        batch: the text.
        x0: the signals [B, T, D]; None: the true ones.
    """
    x0 = interface.target(batch) if x0 is None else x0
    best = interface.recover(x0, batch).argmax(-1)
    right = best == batch.following(batch.tokens)
    return float(right[batch.followed].double().mean())
