"""Files that a run or the cache keeps and reads again: each carries a digest of its own bytes.

The digest is a SHA-256 over the whole file, in which it stands as zeros: among the metadata of a
safetensors file, among the fields of a JSON object. So it is written with the file in one step,
stays with every copy, and covers names, shapes and metadata as well as numbers. Files of version 3
have none; they are only read.

Large tensors that several files have in common (tables, estimated once a run) lie beside them, each
in a file that its digest names; theirs stand among the facts of the files that need them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import atomic_path, write_text
from dihal_bench.core.progress import say

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from torch import Tensor

    Bytes = mmap.mmap | bytes

REMEDY = "delete it, and it is made anew"
_KEY, _KIND = "checksum", "sha256:"
_ZEROS = "0" * 64
_MARK = re.compile(rf'"{_KEY}\\?": ?\\?"{_KIND}([0-9a-f]{{64}})\\?"'.encode())
_TRACES = (_KEY.encode(), _KIND.encode())  # one flipped bit leaves one of them
_FACTS = "kept"  # the only key of the metadata: the order of several is left to chance
_COMMON = "common"  # among the facts: tensor -> digest of what lies beside
_LARGE = 1 << 20  # bytes from which on a common tensor has a file of its own
_LENGTH = 8  # bytes in front of a safetensors header, which say how long it is


class Damaged(UserError):
    """A kept file that is not there, cannot be read, or is not what was written."""


@dataclass(frozen=True)
class Tensors:
    """What a safetensors file holds: tensors and JSON values, each by name."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def usable(path: Path, *, quiet: bool = False) -> bool:
    """Return whether a kept file is there and intact; a damaged one is named.

    A file of version 3 is intact if it is complete.

    Args:
        path: of a file that can be made anew.
        quiet: name none.
    """
    if not path.exists():
        return False
    fault = _fault(path)
    if fault is not None and not quiet:
        say(f"{path} {fault}: it is made anew")
    return fault is None


def same(path: Path, digest: str) -> bool:
    """Return whether a file is there and has a digest that is kept elsewhere; say where it has not.

    Args:
        path: of the file.
        digest: SHA-256 of its bytes, or the beginning of it.
    """
    if path.exists() and sha256(path).startswith(digest):
        return True
    say(f"{path} is missing or does not match its checksum: it is made anew")
    return False


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, atomically, as indented JSON with sorted keys.

    Raises:
        UserError: the folder cannot be written.
        ValueError: a number is not finite.
    """
    assert _KEY not in value
    marked = {**value, _KEY: f"{_KIND}{_ZEROS}"}
    text = json.dumps(marked, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_text(path, text.replace(f'"{_KIND}{_ZEROS}"', f'"{_KIND}{digest}"', 1))


def read_json(path: Path, *, remedy: str = REMEDY) -> dict[str, Any]:
    """Return the JSON object that ``write_json`` wrote.

    Raises:
        Damaged: the file is not there or not intact; names it, and the remedy.
    """
    check(path, remedy=remedy)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    content.pop(_KEY, None)
    return content


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any] | None = None,
    *,
    common: Collection[str] = (),
    near: Path | None = None,
) -> None:
    """Write tensors with their digest into a safetensors file, atomically.

    Args:
        path: of the file.
        tensors: contiguous ones, none of which share memory.
        facts: JSON values by name.
        common: names of tensors that other files have too: the large ones lie beside, once.
        near: another folder where these may lie already; disks hold them once.

    Raises:
        UserError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    large = [n for n in common if tensors[n].nbytes >= _LARGE and distributed.writes()]
    beside = {name: _content(tensors[name]) for name in large}
    for name, digest in beside.items():
        _write_common(_beside(path, digest), digest, tensors[name], near)
    tensors = {name: value for name, value in tensors.items() if name not in beside}
    facts = {**({_COMMON: beside} if beside else {}), **(facts or {})}
    marked = json.dumps({_KEY: f"{_KIND}{_ZEROS}", **facts})
    with atomic_path(path) as temporary:
        if not distributed.writes():
            return
        save_file(dict(tensors), temporary, metadata={_FACTS: marked})
        with temporary.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
            mark = _MARK.search(content, 0, _head(path, content))
            assert mark is not None
            content[mark.start(1) : mark.end(1)] = _digest(content, mark)


def read_tensors(path: Path, *, device: str = "cpu", remedy: str = REMEDY) -> Tensors:
    """Return what ``write_tensors`` wrote.

    Args:
        path: of the file.
        device: where the tensors go.
        remedy: for the message.

    Raises:
        Damaged: the file is not there or not intact; names it, and the remedy.
    """
    from safetensors import safe_open

    check(path, remedy=remedy)
    with safe_open(path, framework="pt") as file:  # which knows fewer devices than torch
        found = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        names = file.keys()
        tensors = {name: file.get_tensor(name).to(device) for name in names}
    facts = found.pop(_FACTS, found)  # in version 3 each was a key of the metadata
    facts.pop(_KEY, None)
    for name, digest in facts.pop(_COMMON, {}).items():
        tensors[name] = _read_common(_beside(path, digest), digest, remedy).to(device)
    return Tensors(tensors, facts)


def sha256(path: Path, *, remedy: str = REMEDY) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        Damaged: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror}); {remedy}.") from error


def check(path: Path, *, remedy: str = REMEDY) -> None:
    """Make sure that a kept file is intact, and what lies beside it.

    Raises:
        Damaged: it is not; names it, and the remedy.
    """
    fault = _fault(path)
    if fault is not None:
        raise Damaged(f"{path} {fault}; {remedy}.")


def _fault(path: Path) -> str | None:
    """Return what is wrong with a kept file, as the rest of a sentence; None: nothing is."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            matches = _matches(content, _head(path, content))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:  # nothing can be mapped of it
        return "is empty"
    if matches is None:
        return None if _is_whole(path) else "is cut off or damaged"
    return _fault_beside(path) if matches else "does not match its checksum"


def _beside(path: Path, digest: str) -> Path:
    return path.with_name(f"common-{digest[:16]}.safetensors")


def _content(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor: of its dtype, shape and bytes."""
    import torch

    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write_common(path: Path, digest: str, tensor: Tensor, near: Path | None) -> None:
    """Write a tensor into a file of its own, if none of that content is there."""
    if not distributed.writes() or _is_common(path, digest):
        return
    other = None if near is None else near / path.name
    path.unlink(missing_ok=True)
    if other is not None and _is_common(other, digest):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # another disk, or one without links
            path.hardlink_to(other)
            return
    write_tensors(path, {_COMMON: tensor})


def _is_common(path: Path, digest: str) -> bool:
    try:
        _read_common(path, digest, REMEDY)
    except Damaged:
        return False
    return True


def _read_common(path: Path, digest: str, remedy: str) -> Tensor:
    """Return a tensor that lies in a file of its own.

    Raises:
        Damaged: the file is not there, or holds another.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(_COMMON)
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{path} cannot be read ({error}); {remedy}.") from error
    if _content(tensor) != digest:
        raise Damaged(f"{path} does not match its checksum; {remedy}.")
    return tensor


def _fault_beside(path: Path) -> str | None:
    """Return what is wrong with the files beside an intact one, as the rest of a sentence."""
    for digest in _common_of(path).values():
        if not _is_common(other := _beside(path, digest), digest):
            return f"needs {other.name} beside it, which is missing or damaged"
    return None


def _common_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    if path.suffix == ".json":
        return {}
    with safe_open(path, framework="np") as file:
        found: dict[str, str] = json.loads(file.metadata()[_FACTS]).get(_COMMON, {})
    return found


def _matches(content: Bytes, head: int) -> bool | None:
    """Return whether a file is what was written; None: it never had a digest."""
    mark = _MARK.search(content, 0, head)
    if mark is not None:
        return _digest(content, mark) == mark.group(1)
    return False if any(trace in content[:head] for trace in _TRACES) else None


def _head(path: Path, content: Bytes) -> int:
    """Return how many of a file's bytes are text."""
    if path.suffix == ".json":
        return len(content)
    return min(len(content), _LENGTH + int.from_bytes(content[:_LENGTH], "little"))


def _digest(content: Bytes, mark: re.Match[bytes]) -> bytes:
    """Return the digest of a file in which it stands as zeros; nothing is copied."""
    with memoryview(content) as whole, whole[: mark.start(1)] as front, whole[mark.end(1) :] as end:
        digest = hashlib.sha256(front)
        digest.update(_ZEROS.encode())
        digest.update(end)
    return digest.hexdigest().encode()


def _is_whole(path: Path) -> bool:
    """Return whether a file without a digest can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".json":
            return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
        with safe_open(path, framework="np"):
            return True
    except (SafetensorError, ValueError, RecursionError):
        return False
