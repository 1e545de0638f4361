"""A short name for the content of a file or folder, wherever it lies."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

_ENDS = 1 << 16  # bytes read of either end of a large file
_WHOLE = 1 << 20  # a file up to so many bytes is read as a whole
_MOST = 2000  # files that are looked into; of further ones the name and the size count


def content_id(path: Path) -> str:
    """Return twelve digits that stand for names, sizes and content.

    Of a large file both ends are read, which holds a header of safetensors and some of the weights,
    so that it takes no time: it tells apart what a person has under two names. What is trained on
    is checked by a digest of everything when it is read.

    Args:
        path: of a file or folder; hidden files are left out.
    """
    files = [path] if path.is_file() else _files(path)
    stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _digest(str(path), stamps)


def _files(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(f for f in found if not f.relative_to(folder).as_posix().startswith("."))


@lru_cache(maxsize=64)
def _digest(path: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for index, (name, size, _) in enumerate(stamps):
        file = Path(name)
        inside = file.relative_to(path).as_posix() if file != Path(path) else ""
        digest.update(f"{inside}\0{size}\0".encode())
        if index < _MOST:
            digest.update(_read(file, size))
    return digest.hexdigest()[:12]


def _read(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        if size <= _WHOLE:
            return file.read()
        start = file.read(_ENDS)
        file.seek(-_ENDS, 2)
        return start + file.read()
