"""Where things are kept and how they are written: all at once or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_folder() -> Path:
    """Return the cache folder: ``$DIHAL_BENCH_CACHE``, else ``$XDG_CACHE_HOME/dihal-bench``."""
    own = os.environ.get("DIHAL_BENCH_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dihal-bench"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is fsynced and renamed to ``path``.

    Of several processes, those that are not to write are given a path where nothing stays.

    Raises:
        UserError: the folder cannot be written.
    """
    if not distributed.writes():
        # Not the null device: libraries that write beside a path and rename would replace it.
        with tempfile.TemporaryDirectory() as nowhere:
            yield Path(nowhere) / path.name
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it is fsynced and renamed to ``path``.

    Where another process was faster, what it has put there stays.

    Raises:
        UserError: the parent folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield temporary
        for inner in (*temporary.iterdir(), temporary):
            inner.chmod((0o777 if inner.is_dir() else 0o666) & ~_UMASK)
            handle = os.open(inner, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        if not path.exists():
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(path: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"cannot write {path}: {reason}; choose a folder you may write to.")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically; NaN and infinity are refused.

    Raises:
        UserError: the folder cannot be written.
        ValueError: a number is not finite.
    """
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, atomically.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def undone_on_error(folder: Path) -> Iterator[None]:
    """Take away on an error what came into a folder meanwhile, and the folder if it is new."""
    there = folder.exists()
    before = set(folder.iterdir()) if there else set()
    try:
        yield
    except Exception:  # whatever it was: it is raised again
        if folder.exists():
            for path in set(folder.iterdir()) - before:
                path.unlink()
            if not there:
                folder.rmdir()
        raise


@contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold ``path`` against other processes; yield whether it is held, always so after a wait.

    Of several processes of one run the main one holds it, for all of them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    alone = distributed.size() == 1
    with path.with_name(f".{path.name}.lock").open("w") as file:
        held = distributed.on_main(lambda: take(file, wait=wait and alone))
        while wait and not held:  # looked after together: nobody is left waiting for the main one
            time.sleep(_LOOK_SECONDS)
            held = distributed.on_main(lambda: take(file, wait=False))
        yield held


def take(file: TextIO, *, wait: bool) -> bool:
    """Lock an open file for this process until it is closed; return whether that was possible."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def short_hash(value: Any) -> str:
    """Return twelve hexadecimal digits that stand for ``value``, a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


_LOOK_SECONDS = 1.0  # between looks at a lock


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()  # read once, at import: reading it sets it, for all threads


BUNDLED = "bundled"  # a backbone or corpus that comes with the installation
PLAIN = "[A-Za-z0-9][A-Za-z0-9._-]*"
_LONGEST = 128
_KEPT = 80  # letters of a name that is longer


def is_plain(name: object) -> bool:
    """Whether a name can be that of a file in the same folder, on every system."""
    fits = isinstance(name, str) and len(name) <= _LONGEST and ".." not in name
    return fits and re.fullmatch(PLAIN, str(name)) is not None


def safe(name: str) -> str:
    """Return a name for a file; of a long one the beginning, and a hash."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "unnamed"
    return plain if len(plain) <= _KEPT else f"{plain[:_KEPT]}-{short_hash(name)}"
