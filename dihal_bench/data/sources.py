"""Corpora by name: the bundled one, the user's own files, and data sets of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core import kept
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import cache_folder
from dihal_bench.core.progress import progress
from dihal_bench.data.dedup import Keys
from dihal_bench.data.documents import TENTH, Corpus, content_hash, deal
from dihal_bench.data.readers import form_of, read_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

VERSION = 1  # of the rules that make documents and sets of files: a change of them raises it

_HUB_NAME = re.compile(r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?::([^:/]+))?")
_FILE_SUFFIXES = frozenset({".csv", ".gz", ".json", ".jsonl", ".md", ".parquet", ".txt"})


def load_corpus(name: str) -> Corpus:
    """Return the corpus called ``name``, with the sets "train" and "validation" at least.

    Files and folders (all files in them but hidden ones, in the order of their paths) are read as
    ``readers`` says. They have no sets of their own, so one document in ten is held out for
    validation, by a hash of its content; a repeated document counts once.

    Args:
        name: "bundled"; or a file or folder; or a data set of the hub, as ``OWNER/NAME`` or
            ``OWNER/NAME:CONFIG``, whose field "text" is streamed.

    Raises:
        UserError: there is nothing by that name, or it holds no text that can be used.
    """
    return find_corpus(name)()


def find_corpus(name: str) -> Callable[[], Corpus]:
    """Return what reads the corpus called ``name``, without reading anything yet.

    Raises:
        UserError: there is nothing here by that name, and it is no name of a data set.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    path = _existing_path(name)
    if path is not None:
        return partial(_local_corpus, name, path)
    match = _HUB_NAME.fullmatch(name)
    if match is None or Path(name).suffix.lower() in _FILE_SUFFIXES:
        raise UserError(
            f"--corpus {name}: there is no such file or folder; give one that exists, or a data "
            "set of the Hugging Face hub as OWNER/NAME or OWNER/NAME:CONFIG, or "
            f"{', '.join(map(repr, _BUILT_IN))}."
        )
    from dihal_bench.data.hub import hub_corpus

    return partial(hub_corpus, name, match[1], match[2])


def _bundled() -> Corpus:
    from dihal_bench.data.bundled import bundled_corpus

    return bundled_corpus()


_BUILT_IN: dict[str, Callable[[], Corpus]] = {"bundled": _bundled}


def _existing_path(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, RuntimeError) as error:  # a closed folder, too long a name, no such home
        raise _unreadable(name, error) from error


def _local_corpus(name: str, path: Path) -> Corpus:
    try:
        files = _files(path)
        facts = _survey(name, files)
    except OSError as error:
        raise _unreadable(name, error) from error
    cut = facts.pop("cut")
    splits = {
        label: partial(_dealt, name, files, held_out, cut)
        for label, held_out in (("train", False), ("validation", True))
    }
    return Corpus(name=name, fingerprint=facts.pop("fingerprint"), splits=splits, notes=facts)


def _files(path: Path) -> list[Path]:
    """List the files to read, in an order that the file system has no part in."""
    if not path.is_dir():
        return [path]
    found = []
    for folder, inner, names in os.walk(path, onerror=_raise):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(path).parts)


def _raise(error: OSError) -> None:
    raise error


def _survey(name: str, files: Sequence[Path]) -> dict[str, Any]:
    """Read everything once: fingerprint, counts, and the hash that separates the sets.

    What was found is kept for as long as the files do not change.
    """
    for file in files:
        if not file.is_file():
            raise UserError(f"--corpus {name}: {file} is no regular file; copy its text into one.")
    state = [[str(f.resolve()), *_state(f.stat())] for f in files]
    key = hashlib.sha256(json.dumps([VERSION, state]).encode()).hexdigest()[:16]
    path = cache_folder() / "sources" / f"{key}.json"
    if not kept.usable(path):
        kept.write_json(path, _facts(name, files))
    return kept.read_json(path)


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _facts(name: str, files: Sequence[Path]) -> dict[str, Any]:
    documents = blank = 0
    hashes = Keys()
    with progress("read the corpus", None, unit="characters") as bar:
        for text in _documents(name, files):
            bar.update(len(text))
            if text.strip():
                documents += 1
                hashes.add(content_hash(text))
            else:
                blank += 1
    if len(hashes) < 2:
        raise UserError(_too_little(name, files, len(hashes)))
    cut = min(max(TENTH, hashes.least + 1), hashes.greatest)  # neither set is empty
    held_out = hashes.below(cut)
    return {
        "fingerprint": _fingerprint(files),
        "cut": cut,
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "documents": {"train": len(hashes) - held_out, "validation": held_out},
        "blank": blank,
        "repeated": documents - len(hashes),
    }


def _too_little(name: str, files: Sequence[Path], documents: int) -> str:
    if documents:
        return (
            f"--corpus {name}: all its text is one document, and training and validation need one "
            "each; give more text, with blank lines between paragraphs or as JSON lines."
        )
    reason = "there is no text in it" if files else "the folder holds no files (but hidden ones)"
    return f"--corpus {name}: {reason}; give plain text or JSON lines."


def _fingerprint(files: Sequence[Path]) -> str:
    digest = hashlib.sha256(str(VERSION).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(bytes(form_of(path)))
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _documents(name: str, files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        yield from read_documents(name, path)


def _dealt(name: str, files: Sequence[Path], held_out: bool, cut: int) -> Iterator[str]:
    return deal(_documents(name, files), held_out=held_out, cut=cut)


def _unreadable(name: str, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    where = getattr(error, "filename", None) or "it"
    return UserError(
        f"--corpus {name}: {where} cannot be read ({reason}); give a path that you may read."
    )
