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
from dihal_bench.data.documents import TENTH, Corpus, apart, content_hash, deal, twin_hash
from dihal_bench.data.readers import COMPRESSIONS, FORMATS, check_suffix, form_of, read_documents
from dihal_bench.data.rows import COLUMN
from dihal_bench.data.splits import TRAIN, VALIDATION, sets_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

VERSION = 1  # of the rules that make documents and sets of files: a change of them raises it
_SURVEY = 2  # of what is kept of a survey

_HUB_NAME = re.compile(r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?::([^:/]+))?")


def load_corpus(name: str, column: str = COLUMN) -> Corpus:
    """Return the corpus called ``name``, with the sets "train" and "validation" at least.

    Files and folders (the files in them in the order of their paths, but for hidden ones and those
    about a data set) are read as ``readers`` says. A folder's files may be of sets (``splits``);
    training text that is in the validation set too is left out. Else one document in ten is held
    out for validation, by a hash of its content; a repeated document counts once.

    Args:
        name: "bundled"; or a file or folder; or a data set of the hub, as ``OWNER/NAME`` or
            ``OWNER/NAME:CONFIG``, which is streamed.
        column: that holds the text, or the chat, of a row; ``a.b`` is nested.

    Raises:
        UserError: there is nothing by that name, or it holds no text that can be used.
    """
    return find_corpus(name, column)()


def find_corpus(name: str, column: str = COLUMN) -> Callable[[], Corpus]:
    """Return what reads the corpus called ``name``, without reading anything yet.

    Raises:
        UserError: there is nothing here by that name, and it is no name of a data set; or it is a
            file of no format.
    """
    if name in _BUILT_IN:
        if column != COLUMN:
            raise UserError(f"--corpus {name} has no columns; leave --text-column {column} away.")
        return _BUILT_IN[name]
    path = _existing_path(name)
    if path is not None:
        if path.is_file():
            check_suffix(name, path)
        return partial(_local_corpus, name, path, column)
    match = _HUB_NAME.fullmatch(name)
    if match is None or Path(name).suffix.lower() in {*FORMATS, *COMPRESSIONS}:
        raise UserError(
            f"--corpus {name}: there is no such file or folder; give one that exists, or a data "
            "set of the Hugging Face hub as OWNER/NAME or OWNER/NAME:CONFIG, or "
            f"{', '.join(map(repr, _BUILT_IN))}."
        )
    from dihal_bench.data.hub import hub_corpus

    return partial(hub_corpus, name, match[1], match[2], column)


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


def _local_corpus(name: str, path: Path, column: str) -> Corpus:
    try:
        sets = _sets(name, path)
        facts = _survey(name, sets, column)
    except OSError as error:
        raise _unreadable(name, error) from error
    open_set = {label: partial(_documents, name, files, column) for label, files in sets.items()}
    splits: dict[str, Callable[[], Iterator[str]]]
    if VALIDATION in sets:
        splits = {TRAIN: partial(_apart, open_set), VALIDATION: open_set[VALIDATION]}
    else:
        cut = facts.pop("cut")
        splits = {
            TRAIN: partial(_dealt, open_set[TRAIN], False, cut),
            VALIDATION: partial(_dealt, open_set[TRAIN], True, cut),
        }
    return Corpus(name=name, fingerprint=facts.pop("fingerprint"), splits=splits, notes=facts)


def _sets(name: str, path: Path) -> dict[str, list[Path]]:
    """List the files to read, by the set that they are of."""
    files = _files(path)
    for file in files:
        if not file.is_file():
            raise UserError(f"--corpus {name}: {file} is no regular file; copy its text into one.")
    return sets_of(name, path, files) if path.is_dir() else {TRAIN: files}


def _files(path: Path) -> list[Path]:
    """List the files there are, in an order that the file system has no part in."""
    if not path.is_dir():
        return [path]
    found = []
    for folder, inner, names in os.walk(path, onerror=_raise):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(path).parts)


def _raise(error: OSError) -> None:
    raise error


def _survey(name: str, sets: Mapping[str, Sequence[Path]], column: str) -> dict[str, Any]:
    """Read everything once: fingerprint, counts, and the hash that separates the sets.

    What was found is kept for as long as the files do not change.
    """
    state = [[label, str(f.resolve()), *_state(f.stat())] for label, f in _labelled(sets)]
    key = hashlib.sha256(json.dumps([_SURVEY, column, state]).encode()).hexdigest()[:16]
    path = cache_folder() / "sources" / f"{key}.json"
    if not kept.usable(path):
        facts = _own_sets(name, sets, column) if VALIDATION in sets else _deal(name, sets, column)
        files = [file for _, file in _labelled(sets)]
        size = sum(file.stat().st_size for file in files)
        kept.write_json(path, {**facts, "files": len(files), "bytes": size})
    return kept.read_json(path)


def _labelled(sets: Mapping[str, Sequence[Path]]) -> list[tuple[str, Path]]:
    return [(label, file) for label, files in sets.items() for file in files]


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _deal(name: str, sets: Mapping[str, Sequence[Path]], column: str) -> dict[str, Any]:
    """Describe text that is dealt into two sets."""
    documents = blank = 0
    hashes, exact, twins = Keys(), Keys(), Keys()  # of those dealt, and of all in either sense
    for text in _watched(name, sets.get(TRAIN, ()), column):
        if text.strip():
            documents += 1
            exact.add(content_hash(text))
            if twins.add(twin_hash(text)):
                hashes.add(content_hash(text))
        else:
            blank += 1
    if len(hashes) < 2:
        raise UserError(_too_little(name, sets.get(TRAIN, ()), len(hashes)))
    cut = min(max(TENTH, hashes.least + 1), hashes.greatest)  # neither set is empty
    held_out = hashes.below(cut)
    return {
        "fingerprint": _fingerprint(sets, column, twins=len(exact) > len(twins)),
        "cut": cut,
        "documents": {TRAIN: len(hashes) - held_out, VALIDATION: held_out},
        "blank": blank,
        "repeated": documents - len(hashes),
    }


def _own_sets(name: str, sets: Mapping[str, Sequence[Path]], column: str) -> dict[str, Any]:
    """Describe text that comes in sets of its own."""
    counts = dict.fromkeys((VALIDATION, TRAIN), 0)
    blank = repeated = 0
    held_out = Keys()
    for label in counts:
        for text in _watched(name, sets[label], column):
            if not text.strip():
                blank += 1
            elif label == TRAIN and twin_hash(text) in held_out:
                repeated += 1
            else:
                counts[label] += 1
                held_out.add(twin_hash(text)) if label == VALIDATION else None
    empty = [label for label, count in counts.items() if not count]
    if empty:
        raise UserError(
            f"--corpus {name}: its {empty[0]} files hold no text (of their own); give text in both "
            "sets, or take the validation files away."
        )
    return {
        "fingerprint": _fingerprint(sets, column),
        "documents": counts,
        "blank": blank,
        "in_validation": repeated,
        "sets": "own",
    }


def _watched(name: str, files: Sequence[Path], column: str) -> Iterator[str]:
    with progress("read the corpus", None, unit="characters") as bar:
        for text in _documents(name, files, column):
            bar.update(len(text))
            yield text


def _too_little(name: str, files: Sequence[Path], documents: int) -> str:
    if documents:
        return (
            f"--corpus {name}: all its text is one document, and training and validation need one "
            "each; give more text, with blank lines between paragraphs or as JSON lines."
        )
    reason = "there is no text in it" if files else "the folder holds no files (but hidden ones)"
    return f"--corpus {name}: {reason}; give plain text or JSON lines."


def _fingerprint(sets: Mapping[str, Sequence[Path]], column: str, *, twins: bool = False) -> str:
    """Return a hash of what the sets depend on; the usual case adds nothing to files and forms."""
    digest = hashlib.sha256(str(VERSION).encode())
    digest.update(b"twins" if twins else b"")  # they were dealt apart once
    digest.update(column.encode() if column != COLUMN else b"")
    for label, path in _labelled(sets):
        digest.update(label.encode() if len(sets) > 1 else b"")
        with path.open("rb") as file:
            digest.update(bytes(form_of(path)))
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _documents(name: str, files: Sequence[Path], column: str) -> Iterator[str]:
    for path in files:
        yield from read_documents(name, path, column)


def _dealt(opened: Callable[[], Iterator[str]], held_out: bool, cut: int) -> Iterator[str]:
    return deal(opened(), held_out=held_out, cut=cut)


def _apart(sets: Mapping[str, Callable[[], Iterator[str]]]) -> Iterator[str]:
    return apart(sets[TRAIN](), sets[VALIDATION]())


def _unreadable(name: str, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    where = getattr(error, "filename", None) or "it"
    return UserError(
        f"--corpus {name}: {where} cannot be read ({reason}); give a path that you may read."
    )
