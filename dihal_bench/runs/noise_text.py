"""Random tokens in windows: text enough to time passes on, before any text is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.data.tokens import Windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class NoiseText:
    """Windows of random tokens, each of which ends one document and begins another.

    Attributes:
        window: tokens per window.
        fingerprint: as every text has one.
    """

    fingerprint = "noise"

    def __init__(self, window: int, vocabulary: int, windows: int):
        self.window, self._vocabulary, self._windows = window, vocabulary, windows

    def __len__(self) -> int:
        """Return the number of windows."""
        return self._windows

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Windows:
        """Return the windows with the given indices."""
        shape, half = (len(indices), self.window), self.window // 2
        place = np.broadcast_to(np.arange(self.window), shape)
        second = place >= half
        position = np.where(second, place - half, place)
        document = 2 * np.asarray(indices, dtype=np.int64)[:, None] + second
        ones = np.ones(shape, dtype=np.int64)
        return Windows(
            tokens=np.random.default_rng(0).integers(self._vocabulary, size=shape),
            positions=position,
            documents=document,
            offsets=position.copy(),
            scored=position > 0,
            bytes=ones,
            words=ones,
        )
