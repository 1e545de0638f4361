"""Columns of numbers that are read piece by piece.

The pages of a file that is mapped into memory count as the process's own for as long as they stay,
so a map grows with what was read of it. What is read here is held by nobody but the caller.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class TextColumn(Protocol):
    """Integers in a row, wherever they are."""

    def __len__(self) -> int:
        """Return how many numbers there are."""

    def __getitem__(self, index: int, /) -> int:
        """Return one number, for ``bisect``."""

    def read(self, first: int, count: int) -> NDArray[np.int64]:
        """Return ``count`` numbers from ``first`` on, fewer at the end."""


class FileColumn:
    """Numbers of one type in a file, which stays open."""

    def __init__(self, path: Path, dtype: str | type[np.integer]):
        self._dtype = np.dtype(dtype)
        self._file = path.open("rb", buffering=0)
        self._length = os.fstat(self._file.fileno()).st_size // self._dtype.itemsize

    def __len__(self) -> int:
        """Return how many numbers there are."""
        return self._length

    def __getitem__(self, index: int, /) -> int:
        """Return one number."""
        return int(self.read(index, 1)[0])

    def read(self, first: int, count: int) -> NDArray[np.int64]:
        """Return ``count`` numbers from ``first`` on, fewer at the end."""
        width = self._dtype.itemsize
        piece = os.pread(self._file.fileno(), count * width, first * width)
        return np.frombuffer(piece, dtype=self._dtype).astype(np.int64)


class ArrayColumn:
    """Numbers that are in memory anyway."""

    def __init__(self, numbers: NDArray[np.int64]):
        self._numbers = numbers

    def __len__(self) -> int:
        """Return how many numbers there are."""
        return len(self._numbers)

    def __getitem__(self, index: int, /) -> int:
        """Return one number."""
        return int(self._numbers[index])

    def read(self, first: int, count: int) -> NDArray[np.int64]:
        """Return ``count`` numbers from ``first`` on, fewer at the end."""
        return self._numbers[first : first + count]
