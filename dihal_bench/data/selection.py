"""Which windows of a text are evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from dihal_bench.data.tokens import PackedTokens


def evaluation_windows(data: PackedTokens, tokens: int) -> list[int]:
    """Choose evenly spaced windows with about ``tokens`` tokens; a function of the sizes alone.

    Raises:
        UserError: they lie in a single document, and intervals need several.
    """
    count = len(data)
    wanted = max(1, min(count, round(tokens / data.window)))
    windows = [int(index) for index in np.unique(np.linspace(0, count - 1, wanted).round())]
    if len(np.unique(data.batch(windows).documents)) < 2:
        raise UserError(
            f"score.tokens={tokens} are of a single validation document, and an interval needs "
            "several; give more, or text of more documents."
        )
    return windows
