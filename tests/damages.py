"""Ways in which a file on disk comes to be another than was written."""

from collections.abc import Callable
from pathlib import Path


def flip(path: Path) -> None:
    """Turn over one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Leave the first two thirds."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


DAMAGES: dict[str, Callable[[Path], None]] = {"a flipped bit": flip, "a truncation": cut}
