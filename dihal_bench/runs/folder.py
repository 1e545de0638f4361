"""The folder of a run: held by one process, and filled by one configuration."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import take, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dihal_bench.config.schema import RunConfig

_LOCK, _CONFIG = ".lock", "config.json"
INPUTS = "inputs.json"  # what a run of this configuration rests on
_OWN = {_LOCK, _CONFIG, INPUTS}  # which without anything else are no result


def run_folder(config: RunConfig, out: Path | None = None, *, name: str | None = None) -> Path:
    """Return ``out``, by default ``runs/<name>-<digest of the configuration>``.

    Args:
        config: what runs.
        out: the user's choice.
        name: the interface's by default.
    """
    return out or Path("runs") / f"{name or config.interface}-{config.digest()}"


@contextlib.contextmanager
def claimed(folder: Path, config: RunConfig, *, dry: bool = False) -> Iterator[None]:
    """Hold the folder for this process, and make sure that it belongs to this configuration.

    A claim under which nothing was kept leaves nothing behind. Of several processes of one run the
    main one holds the folder, for all of them.

    Args:
        folder: of the run.
        config: of the run.
        dry: look only, also while another process works on it.

    Raises:
        UserError: no permission, another process works on it, or it holds another configuration.
    """
    if dry:
        _look(folder, config)
        yield
        return
    with contextlib.ExitStack() as held:
        distributed.on_main(lambda: held.enter_context(_claimed(folder, config)))
        yield
        distributed.barrier()


def _look(folder: Path, config: RunConfig) -> None:
    """Refuse what a claim would refuse, and write nothing."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        number = errno.EEXIST if there == folder else errno.ENOTDIR
        raise _closed(folder, os.strerror(number))
    if not os.access(there, os.W_OK):
        raise _closed(folder, os.strerror(errno.EACCES))
    _check_configuration(folder, config)


def _closed(folder: Path, reason: str) -> UserError:
    return UserError(f"--out {folder}: {reason}; choose a folder you may write to.")


@contextlib.contextmanager
def _claimed(folder: Path, config: RunConfig) -> Iterator[None]:
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    before = _entries(folder) if folder.is_dir() else {}
    with _lock(folder):
        write_json(folder / _CONFIG, _check_configuration(folder, config))
        try:
            yield
        finally:
            _forget(folder, made, before)


def _lock(folder: Path) -> TextIO:
    """Open and lock the folder's lock file; closing it ends the claim."""
    path = folder / _LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise _closed(folder, error.strerror or str(error)) from error
    try:
        held = take(file, wait=False) and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        held = False
    if not held:  # taken, or taken away by a claim that ended just now
        file.close()
        raise UserError(f"--out {folder}: another process works on this run; wait for it.")
    return file


def _check_configuration(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Return what is kept of a configuration, if the folder holds no other."""
    kept = folder / _CONFIG
    content = config.to_dict() | {"digest": config.digest()}  # the digest knows the included files
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) != content:
        raise UserError(
            f"--out {folder} holds a run of another configuration (or of other code in an included "
            "file); choose another folder."
        )
    return content


def _entries(folder: Path) -> dict[str, int]:
    """Return what lies in a folder, and when each was changed."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def _forget(folder: Path, made: list[Path], before: dict[str, int]) -> None:
    """Take a claim away under which nothing came into the folder."""
    if {name for name, _ in _entries(folder).items() - before.items()} - _OWN:
        return
    for name in _OWN - set(before):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a parent that somebody else uses by now stays
        for path in made:
            path.rmdir()
