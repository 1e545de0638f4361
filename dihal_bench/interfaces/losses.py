"""Losses that all interfaces share, as means over the places that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from dihal_bench.interfaces.part import mean_of_part

if TYPE_CHECKING:
    from torch import Tensor

    from dihal_bench.interfaces.batch import Batch


def mean_over(values: Tensor, mask: Tensor, over: Tensor | None = None) -> Tensor:
    """Return the mean of ``values`` [B, T] where ``mask`` [B, T] is true.

    Args:
        values: of all places.
        mask: those that count.
        over: over how many places the mean is, [], where these are not all of them.

    Returns:
        The mean, []. Where processes share the windows, their mean of what this returns is the
        mean over all places.

    A product, not an index: the gradient of indexing is serial on CPU.
    """
    return mean_of_part((values * mask).sum(), mask.sum() if over is None else over)


def scored_places(batch: Batch, where: Tensor | None = None) -> Tensor:
    """Return the places whose next token is scored, of those in ``where``, bool [B, T - 1]."""
    scored = batch.scored[:, 1:]
    return scored if where is None else scored & where[:, :-1]


def token_losses(
    logits: Tensor,
    batch: Batch,
    *,
    ce: bool,
    kd: bool,
    where: Tensor | None = None,
    over: Tensor | None = None,
    share: float = 1.0,
) -> dict[str, Tensor]:
    """Return what is asked for of cross-entropy and KL(teacher || logits) over scored tokens.

    Args:
        logits: [B, T, V].
        batch: the windows.
        ce: whether cross-entropy is asked for.
        kd: whether the divergence from the teacher is.
        where: places whose logits count, bool [B, T]; None: all.
        over: over how many places the means are, [], where the windows stand for more of them.
        share: of the windows, those that these are; divides the means.
    """
    if not ce and not kd:
        return {}
    scored, losses = scored_places(batch, where), {}
    student = F.log_softmax(logits[:, :-1].float(), dim=-1)  # (B, T - 1, V)
    if ce:
        own = -student.gather(-1, batch.tokens[:, 1:, None])[..., 0]
        losses["ce"] = mean_over(own, scored, over) / share
    if kd:  # cross-entropy - entropy: no logarithm is taken again
        teacher, entropy = batch.teacher
        distance = -torch.linalg.vecdot(teacher[:, :-1], student) - entropy[:, :-1]
        losses["kd"] = mean_over(distance, scored, over) / share
    return losses
