"""Logits that are no numbers stop a score: left out, they would make a silent number of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def require_finite(values: Tensor, whose: str, what: str) -> None:
    """Make sure that all values are finite.

    Args:
        values: of any shape.
        whose: the row or model that they are of, for the message.
        what: they are.

    Raises:
        UserError: some are NaN or infinite; the message says how many.
    """
    wrong = int((~torch.isfinite(values)).sum())
    if wrong:
        raise UserError(
            f"{whose}: {wrong} of {values.numel()} {what} are not finite numbers, so it cannot be "
            "scored; compute in a wider dtype, or look at its weights and its recover."
        )


def require_law(logits: Tensor, whose: str) -> None:
    """Make sure that logits [..., V] are those of a distribution: some may be -inf, not all.

    Raises:
        UserError: in some place the largest is NaN or infinite; the message says in how many.
    """
    require_finite(logits.amax(-1), whose, "places' logits")
