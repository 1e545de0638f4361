"""Losses that all interfaces share, as means over the places that count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from dihal_bench.interfaces.part import mean_of_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from dihal_bench.interfaces.batch import Batch

_AT_ONCE = 1 << 24  # logits that are held in float32


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
    scored = scored_places(batch, where)
    if logits[:, :-1].numel() > _AT_ONCE:
        targets = batch.following(batch.tokens)
        both = _Distances.apply(logits, batch.teacher_logits if kd else None, targets)  # type: ignore[no-untyped-call]
        found = {"ce": both[0][:, :-1], "kd": both[1][:, :-1]}
    else:
        found = _distances(logits[:, :-1], batch, ce=ce, kd=kd)
    asked = {"ce": ce, "kd": kd}
    return {n: mean_over(found[n], scored, over) / share for n, wanted in asked.items() if wanted}


def _distances(logits: Tensor, batch: Batch, *, ce: bool, kd: bool) -> dict[str, Tensor]:
    """Return cross-entropy and divergence of every place but the last, [B, T - 1], at once."""
    student, found = F.log_softmax(logits.float(), dim=-1), {}  # (B, T - 1, V)
    if ce:
        found["ce"] = -student.gather(-1, batch.tokens[:, 1:, None])[..., 0]
    if kd:  # cross-entropy - entropy: no logarithm is taken again
        teacher, entropy = batch.teacher
        found["kd"] = -torch.linalg.vecdot(teacher[:, :-1], student) - entropy[:, :-1]
    return found


class _Distances(torch.autograd.Function):
    """Cross-entropy and divergence of every place, few rows at a time.

    Probabilities are computed anew on the way back. Beside the logits, in their own dtype, nothing
    is kept but the gradient; in float32 there is never more than a few rows.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, teacher: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return -log q(target) and KL(teacher || q), [B, T].

        Args:
            ctx: keeps what the way back needs.
            logits: of q, [B, T, V].
            teacher: its logits, [B, T, V]; None: the divergence is zero.
            targets: token ids, [B, T].
        """
        ctx.save_for_backward(logits, teacher, targets)
        ce = torch.empty(targets.shape, dtype=_wide(logits), device=logits.device)
        kd = torch.zeros_like(ce)
        for rows in _slices(logits):
            own = _logs(logits[rows])
            ce[rows] = -own.gather(-1, targets[rows][:, None])[:, 0]
            if teacher is not None:
                theirs = _logs(teacher[rows])
                kd[rows] = (theirs.exp() * (theirs - own)).sum(-1)
        return ce, kd

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the logits, [B, T, V]."""
        logits, teacher, targets = ctx.saved_tensors
        of_ce, of_kd = gradients
        gradient = torch.empty_like(logits)
        for rows in _slices(logits):
            both = (of_ce[rows] + of_kd[rows])[:, None] * _logs(logits[rows]).exp()
            if teacher is not None:
                both -= of_kd[rows][:, None] * _logs(teacher[rows]).exp()
            both.scatter_add_(-1, targets[rows][:, None], -of_ce[rows][:, None])
            gradient[rows] = both.to(gradient.dtype)
        return gradient, None, None


def _slices(logits: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield places [B, T, V] of few enough elements, each within a window."""
    windows, places, vocabulary = logits.shape
    few = max(1, _AT_ONCE // vocabulary)
    for window in range(windows):
        for start in range(0, places, few):
            yield window, slice(start, start + few)


def _wide(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _logs(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=-1, dtype=_wide(logits))
