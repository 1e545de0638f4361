"""Hand-made windows that behave as packed text does."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dihal_bench.data.tokens import Windows

from ..tiny import make_windows


class Text:
    """Windows of pieces (document, first offset, length), each token of three bytes."""

    def __init__(self, rows: Sequence[Sequence[tuple[int, int, int]]], seed: int = 0) -> None:
        windows = make_windows(rows, seed)
        words = np.arange(windows.tokens.size).reshape(windows.tokens.shape) % 2
        self.all = replace(windows, bytes=3 * windows.bytes, words=words)
        self.window = windows.tokens.shape[1]
        self.fingerprint = f"{rows} {seed}"

    def __len__(self) -> int:
        return len(self.all.tokens)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Windows:
        parts = {name: array[list(indices)].copy() for name, array in vars(self.all).items()}
        return replace(self.all, **parts)
