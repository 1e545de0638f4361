"""Data sets of the Hugging Face hub, streamed: none is downloaded whole, no code of theirs runs.

One column of a row is a document. Several files are read at a time, one row of each in turn, in
an order drawn once and for all: large corpora are sorted by source, and a run reads a part only.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dihal_bench.core import kept
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import cache_folder
from dihal_bench.data.decoding import Flaw
from dihal_bench.data.documents import Corpus, content_hash, deal
from dihal_bench.data.rows import COLUMN, Row, documents, json_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

VERSION = 1  # of the order of the documents: a change of this file raises it
_DEAL = 2  # of what is dealt to which set: 2 keeps documents together that differ in white space
PATIENCE = 10.0  # seconds to wait for the hub's first answer

_LANES = 16  # files open at a time

_Rows = dict[str, "Callable[[], Iterator[Row]]"]


@dataclass(frozen=True)
class _Source:
    revision: str
    copied: bool  # read from the copy that datasets.load_dataset made: in another order
    sets: _Rows


def hub_corpus(name: str, repository: str, config: str | None, column: str = COLUMN) -> Corpus:
    """Return a data set of the hub: the copy that ``datasets`` has in its cache, else a stream.

    A data set with its own "validation" keeps both sets as published; else "train" is dealt nine to
    one by content. Without the hub, what is in either cache, ``datasets``' or ours, still works.

    Args:
        name: what the user calls the corpus.
        repository: ``OWNER/NAME``.
        config: name of the configuration, if the data set has several.
        column: that holds the text, or the chat, of a row.

    Raises:
        UserError: there is no such data set or configuration, it cannot be reached, or it has no
            set "train".
    """
    info = _ask(name, repository)
    source = _copied(name, repository, config, info.sha if info else None)
    if source is None and info is not None:
        source = _streamed(name, config, info)
        known = {"revision": source.revision, "sets": sorted(source.sets)}
        kept.write_json(_memory(repository, config), known)
    elif source is None:
        source = _remembered(name, repository, config)
    if "train" not in source.sets:
        raise UserError(
            f"--corpus {name}: the data set has no set called train (but "
            f"{', '.join(source.sets)}); give another, or save the text in a file."
        )
    published = "validation" in source.sets
    identity = [VERSION, repository, config, source.revision, source.copied]
    identity += [] if published else [_DEAL]
    identity += [] if column == COLUMN else [column]
    return Corpus(
        name=name,
        fingerprint=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16],
        splits=_two_sets(
            {label: partial(_texts, name, rows, column) for label, rows in source.sets.items()}
        ),
        notes={
            "repository": repository,
            "config": config,
            "revision": source.revision,
            "sets": "published" if published else "dealt 9:1, repeats dropped",
        },
    )


def _ask(name: str, repository: str) -> Any:
    """Return what the hub knows of a data set; None if it does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return HfApi().dataset_info(repository, timeout=PATIENCE)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UserError(
            f"--corpus {name}: no such file or folder here, and no such public data set on the "
            "Hugging Face hub; check the name, or log in with `hf auth login` if it is private."
        ) from error
    except _failures():
        return None


def _texts(name: str, rows: Callable[[], Iterator[Row]], column: str) -> Iterator[str]:
    try:
        yield from documents(rows(), column)
    except Flaw as flaw:
        raise UserError(f"--corpus {name}: {flaw}.") from None


def _two_sets(
    sets: dict[str, Callable[[], Iterator[str]]],
) -> dict[str, Callable[[], Iterator[str]]]:
    if "validation" in sets:
        return {label: sets[label] for label in ("train", "validation")}

    def dealt(held_out: bool) -> Iterator[str]:
        return deal(sets["train"](), held_out=held_out)

    return {"train": partial(dealt, False), "validation": partial(dealt, True)}


def _copied(name: str, repository: str, config: str | None, revision: str | None) -> _Source | None:
    """Find what ``datasets.load_dataset`` left in its cache, of this revision if it is known."""
    from datasets.packaged_modules.cache.cache import Cache

    try:
        builder = Cache(
            repo_id=repository,
            dataset_name=PurePosixPath(repository).name,
            config_name=config,
            version="auto",
            hash="auto",
        )
    except ValueError:  # nothing there
        return None
    if revision not in (None, builder.hash):
        return None
    with _explained(name):
        sets = _row_sets(name, builder.as_streaming_dataset())
    return _Source(str(builder.hash), True, sets)


def _streamed(name: str, config: str | None, info: Any) -> _Source:
    lists = _lists([file.rfilename for file in info.siblings or []], info.id)
    if lists:
        return _Source(info.sha, False, _listed(name, info.id, config, info.sha, lists))
    from datasets import load_dataset

    with _explained(name):
        streams = load_dataset(info.id, config, revision=info.sha, streaming=True)
    return _Source(info.sha, False, _row_sets(name, streams))


def _memory(repository: str, config: str | None) -> Path:
    key = hashlib.sha256(json.dumps([VERSION, repository, config]).encode()).hexdigest()[:16]
    return cache_folder() / "streamed" / f"{key}.json"


def _remembered(name: str, repository: str, config: str | None) -> _Source:
    """Identify a data set streamed before; its tokens may be packed, though no text can be had."""
    unreachable = UserError(
        f"--corpus {name}: no such file or folder here, and the Hugging Face hub cannot be "
        "reached, nor is this data set in its cache; give a local file or folder, or load it once "
        f"while online: datasets.load_dataset({repository!r}, {config!r})."
    )

    def nothing() -> Iterator[Row]:
        raise unreachable

    memory = _memory(repository, config)
    if not kept.usable(memory):
        raise unreachable
    known = kept.read_json(memory)
    return _Source(known["revision"], False, dict.fromkeys(known["sets"], nothing))


def _row_sets(name: str, streams: Mapping[str, Any]) -> _Rows:
    return {label: partial(_rows, name, stream) for label, stream in streams.items()}


def _rows(name: str, stream: Any) -> Iterator[Row]:
    """Yield the rows of a ``datasets.IterableDataset``."""
    with _explained(name):
        lanes = min(stream.num_shards, _LANES)
        if lanes > 1:
            stream = stream.shuffle(seed=0, buffer_size=1)  # the files, not the rows
        for row in _in_turn(stream.shard(lanes, lane) for lane in range(lanes)):
            yield "a row", row


def _lists(files: list[str], repository: str) -> dict[str, str]:
    """Find the lists of addresses, by configuration, of a data set made by a script.

    Such a script is never run; but where it only reads the JSON lines at the addresses in
    ``urls/CONFIG.txt``, as that of Dolma does, it is not needed either.
    """
    if f"{PurePosixPath(repository).name}.py" not in files:
        return {}
    paths = [PurePosixPath(file) for file in files]
    return {p.stem: str(p) for p in paths if p.suffix == ".txt" and p.parent.name == "urls"}


def _listed(
    name: str, repository: str, config: str | None, revision: str, lists: dict[str, str]
) -> _Rows:
    from huggingface_hub import HfApi

    if config not in lists:
        choice = ", ".join(f"{repository}:{label}" for label in sorted(lists))
        raise UserError(f"--corpus {name}: choose a configuration: {choice}.")
    with _explained(name):
        path = HfApi().hf_hub_download(
            repository, lists[config], repo_type="dataset", revision=revision
        )
        addresses = sorted(Path(path).read_text(encoding="utf-8").split(), key=content_hash)
    return {"train": partial(_addressed, name, addresses)}


def _addressed(name: str, addresses: list[str]) -> Iterator[Row]:
    """Yield the rows of JSON lines anywhere, several files at a time."""
    lanes = [addresses[lane::_LANES] for lane in range(_LANES)]
    with _explained(name):
        yield from _in_turn(chain.from_iterable(map(_remote_lines, lane)) for lane in lanes)


def _remote_lines(address: str) -> Iterator[Row]:
    import fsspec  # type: ignore[import-untyped]

    with fsspec.open(address, "rb", compression="infer") as file:
        try:
            for place, row in json_lines(file):
                yield f"{address}, {place}", row
        except Flaw as flaw:
            raise Flaw(f"{address}, {flaw}") from None


def _in_turn(lanes: Iterable[Iterable[Any]]) -> Iterator[Any]:
    """Yield one item of each lane after the other; a lane that ends is passed over."""
    for items in zip_longest(*lanes):
        yield from (item for item in items if item is not None)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Put what the libraries raise into one sentence."""
    try:
        yield
    except (UserError, Flaw, GeneratorExit):  # the last: nobody reads on
        raise
    except _failures() as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
        raise UserError(
            f"--corpus {name}: the data set cannot be read ({said}); check the name and the "
            "connection, or give a local file or folder."
        ) from error


def _failures() -> tuple[type[BaseException], ...]:
    """What may go wrong between here and the hub, in the terms of the libraries in between."""
    from aiohttp import ClientError
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    client = HfHubHTTPError.__bases__  # the HTTP client's own error, whichever client that is
    return (OSError, EOFError, ValueError, RuntimeError, ClientError, DatasetsError, *client)
