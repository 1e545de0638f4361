"""Files -> documents: the suffix of a file decides how it is read, and through which compression.

Plain text is described in ``paragraphs``, files of rows in ``rows``.
"""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from dihal_bench.core.errors import UserError
from dihal_bench.data.decoding import Flaw
from dihal_bench.data.paragraphs import plain_text
from dihal_bench.data.rows import (
    COLUMN,
    Row,
    arrow_rows,
    csv_rows,
    documents,
    json_rows,
    parquet_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Format:
    """How files of a suffix are read.

    Attributes:
        code: stands for it in fingerprints.
        rows: of a file, given the column; None: plain text.
        seeks: whether the file is read from places in it, so that it has to lie there unpacked.
    """

    code: int
    rows: Callable[[BinaryIO, str], Iterator[Row]] | None = None
    seeks: bool = False


_PROSE = Format(code=0)
_JSON = Format(code=1, rows=json_rows)
FORMATS = {
    **dict.fromkeys((".txt", ".text", ".md", ".rst"), _PROSE),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), _JSON),
    ".csv": Format(code=2, rows=csv_rows),
    ".tsv": Format(code=3, rows=partial(csv_rows, delimiter="\t")),
    ".parquet": Format(code=4, rows=parquet_rows, seeks=True),
    ".arrow": Format(code=5, rows=arrow_rows, seeks=True),
}


def _zstd(path: Path) -> Any:
    from pyarrow import input_stream

    return io.BufferedReader(input_stream(str(path), compression="zstd"))


def _plain(path: Path) -> BinaryIO:
    return path.open("rb")


_UNPACKED = {"": (0, _plain)}
COMPRESSIONS: dict[str, tuple[int, Callable[[Path], Any]]] = {
    ".gz": (1, gzip.open),
    ".bz2": (2, bz2.open),
    ".xz": (3, lzma.open),
    ".zst": (4, _zstd),
}
_BESIDE = (  # what lies beside the text of a data set: names, in lower case
    *("readme*", "licen[cs]e*", "copying*", "notice*", "citation*", "croissant*.json"),
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
    "cache-*.arrow",  # what ``datasets`` computed from a saved one
)


def is_beside(name: str) -> bool:
    """Return whether a file's name says that it is about a data set, and no part of its text."""
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in _BESIDE)


def suffixes(path: Path) -> tuple[str, str]:
    """Return the suffixes for format and compression, in lower case; "" where there is none."""
    packed = path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""
    inner = path.with_suffix("") if packed else path
    return inner.suffix.lower(), packed


def form_of(path: Path) -> tuple[int, int]:
    """Return numbers that stand for how a file is read: (format, compression)."""
    suffix, packed = suffixes(path)
    return FORMATS[suffix].code, (_UNPACKED | COMPRESSIONS)[packed][0]


def check_suffix(corpus: str, path: Path) -> None:
    """Refuse a file that is none of the formats.

    Raises:
        UserError: says which there are.
    """
    if suffixes(path)[0] not in FORMATS:
        raise UserError(
            f"--corpus {corpus}: {path} has none of the suffixes that are read ("
            f"{', '.join(FORMATS)}, and these with {', '.join(COMPRESSIONS)} behind); convert or "
            "rename it, or take it away."
        )


def read_documents(corpus: str, path: Path, column: str = COLUMN) -> Iterator[str]:
    """Yield the documents of one file; the suffix decides how it is read.

    Args:
        corpus: what the user calls the corpus, for the error.
        path: the file, of a known suffix.
        column: that holds the text of a row.

    Raises:
        UserError: the file cannot be opened, is no UTF-8, or has a row that is no document.
    """
    suffix, packed = suffixes(path)
    form = FORMATS[suffix]
    if form.rows is None and column != COLUMN:
        raise UserError(
            f"--corpus {corpus}: {path} is plain text, which has no column {column}; leave "
            "--text-column away, or give files of rows."
        )
    try:
        with _opened(path, packed, form) as file:
            yield from documents(form.rows(file, column), column) if form.rows else plain_text(file)
    except Flaw as flaw:
        raise UserError(f"--corpus {corpus}: {path}, {flaw}.") from None
    except _failures() as error:
        said = getattr(error, "strerror", None) or str(error).strip() or "it ends too early"
        raise UserError(
            f"--corpus {corpus}: {path} cannot be read ({said.splitlines()[0].rstrip('. ')}); give "
            "a whole file you may read."
        ) from error


@contextmanager
def _opened(path: Path, packed: str, form: Format) -> Iterator[BinaryIO]:
    with (_UNPACKED | COMPRESSIONS)[packed][1](path) as file:
        if not (packed and form.seeks):
            yield cast("BinaryIO", file)
            return
        with tempfile.TemporaryFile() as whole:
            shutil.copyfileobj(file, whole)
            whole.seek(0)
            yield cast("BinaryIO", whole)


def _failures() -> tuple[type[Exception], ...]:
    """What the libraries raise for a file that is not whole."""
    from pyarrow import ArrowException

    return OSError, EOFError, zlib.error, lzma.LZMAError, ArrowException
