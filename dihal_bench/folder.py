"""The folder of a run: held by one process, and filled by one configuration."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dihal_bench import distributed
from dihal_bench.errors import UserError
from dihal_bench.files import take, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dihal_bench.config import RunConfig

_LOCK, _CONFIG = ".lock", "config.json"


def run_folder(config: RunConfig, out: Path | None = None, *, name: str | None = None) -> Path:
    """Return ``out``, by default ``runs/<name>-<digest of the configuration>``.

    Args:
        config: what runs.
        out: the user's choice.
        name: the interface's by default.
    """
    return out or Path("runs") / f"{name or config.interface}-{config.digest()}"


@contextlib.contextmanager
def claimed(folder: Path, config: RunConfig) -> Iterator[None]:
    """Hold the folder for this process, and make sure that it belongs to this configuration.

    A claim under which nothing was kept leaves nothing behind. Of several processes of one run the
    main one holds the folder, for all of them.

    Raises:
        UserError: no permission, another process works on it, or it holds another configuration.
    """
    with contextlib.ExitStack() as held:
        distributed.on_main(lambda: held.enter_context(_claimed(folder, config)))
        yield
        distributed.barrier()


@contextlib.contextmanager
def _claimed(folder: Path, config: RunConfig) -> Iterator[None]:
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with _lock(folder):
        _check_configuration(folder, config)
        try:
            yield
        finally:
            _forget(folder, made)


def _lock(folder: Path) -> TextIO:
    """Open and lock the folder's lock file; closing it ends the claim."""
    path = folder / _LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise UserError(
            f"--out {folder}: {error.strerror or error}; choose a folder you may write to."
        ) from error
    try:
        held = take(file, wait=False) and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        held = False
    if not held:  # taken, or taken away by a claim that ended just now
        file.close()
        raise UserError(f"--out {folder}: another process works on this run; wait for it.")
    return file


def _check_configuration(folder: Path, config: RunConfig) -> None:
    kept = folder / _CONFIG
    content = config.to_dict() | {"digest": config.digest()}  # the digest knows the included files
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) != content:
        raise UserError(
            f"--out {folder} holds a run of another configuration (or of other code in an included "
            "file); choose another folder."
        )
    write_json(kept, content)


def _forget(folder: Path, made: list[Path]) -> None:
    if {path.name for path in folder.iterdir()} - {_LOCK, _CONFIG}:
        return
    (folder / _CONFIG).unlink(missing_ok=True)
    (folder / _LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a parent that somebody else uses by now stays
        for path in made:
            path.rmdir()
