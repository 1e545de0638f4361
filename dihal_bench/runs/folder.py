"""The folder of a run: held by one process, and filled by one configuration."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dihal_bench.config.identity import identity, version_3_digest
from dihal_bench.config.resolve import kept
from dihal_bench.config.schema import keys_of
from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import take
from dihal_bench.core.kept import read_json, write_json
from dihal_bench.core.registry import find
from dihal_bench.models.named import NOTICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dihal_bench.config.schema import RunConfig

_LOCK, _CONFIG = ".lock", "config.json"
INPUTS = "inputs.json"  # what a run of this configuration rests on
_ANOTHER = "put it back as it was, or choose another folder"
_OWN = {_LOCK, _CONFIG, INPUTS, NOTICE}  # which without anything else are no result


def run_folder(config: RunConfig, out: Path | None = None, *, name: str | None = None) -> Path:
    """Return ``out``, by default ``runs/<name>-<training id>``; see ``folder_in``.

    Args:
        config: what runs.
        out: the user's choice.
        name: the interface's by default.
    """
    return out or folder_in(Path("runs"), config, name=name)


def folder_in(parent: Path, config: RunConfig, *, name: str | None = None) -> Path:
    """Return where a run lies among others: by its training id, so that one training is one run.

    One that version 3 has made and named otherwise stays where it is.
    """
    start = name or config.interface
    folder = parent / f"{start}-{identity(config).training}"
    earlier = parent / f"{start}-{version_3_digest(config.keys(), map(find, config.include))}"
    return earlier if earlier.exists() and not folder.exists() else folder


@contextlib.contextmanager
def claimed(folder: Path, config: RunConfig | None, *, dry: bool = False) -> Iterator[None]:
    """Hold the folder for this process, and make sure that it belongs to this configuration.

    A claim under which nothing was kept leaves nothing behind. Of several processes of one run the
    main one holds the folder, for all of them.

    Args:
        folder: of the run.
        config: of the run; None: the folder's own record says what it holds.
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


def _look(folder: Path, config: RunConfig | None) -> None:
    """Refuse what a claim would refuse, and write nothing."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        number = errno.EEXIST if there == folder else errno.ENOTDIR
        raise _closed(folder, os.strerror(number))
    if not os.access(there, os.W_OK):
        raise _closed(folder, os.strerror(errno.EACCES))
    if config is not None:
        _check_configuration(folder, config)


def _closed(folder: Path, reason: str) -> UserError:
    return UserError(f"--out {folder}: {reason}; choose a folder you may write to.")


@contextlib.contextmanager
def _claimed(folder: Path, config: RunConfig | None) -> Iterator[None]:
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    before = _entries(folder) if folder.is_dir() else {}
    with _lock(folder):
        if config is not None:
            _check_configuration(folder, config)
            _keep_configuration(folder, config)
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


def _keep_configuration(folder: Path, config: RunConfig) -> None:
    """Write down what the folder is filled by, if it is not written yet."""
    if not (folder / _CONFIG).exists():
        own = identity(config)
        about = {"training": own.training, "code": dict(own.code), "content": dict(own.content)}
        write_json(folder / _CONFIG, config.to_dict() | {"identity": about})


def _check_configuration(folder: Path, config: RunConfig) -> None:
    """Refuse a folder that holds what another configuration, or other included code, has made.

    How it was scored, and on what device, makes no difference.
    """
    path = folder / _CONFIG
    if not path.exists():
        return
    content = read_json(path, remedy=_ANOTHER)
    about = content.pop("identity", None) or _of_version_3(content, config)
    own = identity(config)
    for name, digest in about.get("content", {}).items():
        if own.content.get(name, digest) != digest and getattr(config, name) == content[name]:
            raise UserError(
                f"{folder} was begun with another {name} of the same name; put that one back, or "
                "choose another folder with --out."
            )
    if about["training"] != own.training:
        raise UserError(
            f"--out {folder} holds a run of another configuration (or of other code in an included "
            "file); choose another folder."
        )


def _of_version_3(content: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return what version 3 kept as it is kept now, if the included code is still the same.

    Its digest is over all keys and the files; nothing is said of the code but by it.
    """
    digest = content.pop("digest", None)
    known = keys_of(content)
    paths = [find(path) for path in config.include]
    same = len(paths) == len(known.get("include", ())) and version_3_digest(known, paths) == digest
    return {"training": identity(kept(content)).training if same else ""}


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
