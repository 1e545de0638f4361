"""Files -> documents: plain text and JSON lines, either of them gzipped.

*Plain text* (any suffix, UTF-8): the paragraphs, separated by blank lines, are gathered in order
into documents of up to 4,000 characters, about a thousand tokens: long enough to fill a window,
short enough that a small file has documents to hold out. A longer paragraph is cut at white space.
Line ends are unified, and white space at the end of a paragraph is dropped.

*JSON lines* (``.jsonl``, ``.json``): one object per line, whose string ``text`` is one document,
kept as it is. Half a surrogate pair, which no encoding can hold, becomes U+FFFD.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

_JSON_SUFFIXES = frozenset({".jsonl", ".json"})

_DOCUMENT = 4000  # characters
_CHUNK = 1 << 16  # bytes
_BLANK_LINES = re.compile(r"\n\s*\n")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_ORDER_MARK = "\ufeff"


class Flaw(ValueError):
    """What is wrong at which place of a file, and the remedy."""


def form_of(path: Path) -> tuple[bool, bool]:
    """Tell from the suffix how a file is read: (as JSON lines, through gzip)."""
    zipped = path.suffix.lower() == ".gz"
    inner = path.with_suffix("") if zipped else path
    return inner.suffix.lower() in _JSON_SUFFIXES, zipped


def read_documents(corpus: str, path: Path) -> Iterator[str]:
    """Yield the documents of one file; the suffix decides how it is read.

    Args:
        corpus: what the user calls the corpus, for the error.
        path: the file.

    Raises:
        UserError: the file cannot be opened, is no UTF-8, or has a line that is no document.
    """
    is_json, zipped = form_of(path)
    read = json_lines if is_json else plain_text
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            yield from read(cast("BinaryIO", file))
    except Flaw as flaw:
        raise UserError(f"--corpus {corpus}: {path}, {flaw}.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--corpus {corpus}: {path} cannot be read ({reason}); give a whole file you may read."
        ) from error


def json_lines(file: BinaryIO) -> Iterator[str]:
    """Yield the ``text`` of every line; empty lines are passed over.

    Raises:
        Flaw: a line is not UTF-8, not JSON, or has no string called text.
    """
    offset = 0
    for number, line in enumerate(file, 1):
        try:
            decoded = line.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8(offset + error.start) from None
        offset += len(line)
        if number == 1:
            decoded = decoded.removeprefix(_BYTE_ORDER_MARK)
        if decoded.strip():
            yield _SURROGATE.sub("\ufffd", _text_field(decoded, number))


def _text_field(line: str, number: int) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Flaw(f"line {number}: not JSON ({error}); write one object per line") from None
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise Flaw(f'line {number}: no string called "text"; write {{"text": "..."}} in every line')
    return text


def plain_text(file: BinaryIO) -> Iterator[str]:
    """Yield runs of paragraphs, joined by empty lines.

    Raises:
        Flaw: the file is not UTF-8.
    """
    gathered: list[str] = []
    size = 0
    for paragraph in _paragraphs(file):
        if gathered and size + len(paragraph) > _DOCUMENT:
            yield "\n\n".join(gathered)
            gathered, size = [], 0
        gathered.append(paragraph)
        size += len(paragraph) + 2
    if gathered:
        yield "\n\n".join(gathered)


def _paragraphs(file: BinaryIO) -> Iterator[str]:
    return (text for piece in _pieces(file) if (text := piece.rstrip()))


def _pieces(file: BinaryIO) -> Iterator[str]:
    rest = "\n"  # so that white space in front of everything ends in a blank line like any other
    for chunk in _decoded(file):
        text = rest + chunk
        body = text.rstrip()  # the white space behind it may go on in the next chunk
        *whole, last = _BLANK_LINES.split(body)
        for paragraph in whole:
            yield (yield from _cut(paragraph))
        rest = (yield from _cut(last)) + text[len(body) :]
    yield rest


def _cut(text: str) -> Generator[str, None, str]:
    """Yield what exceeds one document, cut at white space where there is some; return the rest."""
    text = text.lstrip("\n")
    while len(text) > _DOCUMENT:
        stop = max(text.rfind(space, 1, _DOCUMENT + 1) for space in " \n")
        if stop < 0:
            stop = _DOCUMENT
        yield text[:stop]
        text = text[stop:].lstrip()
    return text


def _decoded(file: BinaryIO) -> Iterator[str]:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    done = 0
    while chunk := file.read(_CHUNK):
        start, done = done, done + len(chunk)
        text = _decode(decoder, chunk, done)
        yield text if start else text.removeprefix(_BYTE_ORDER_MARK)
    yield _decode(decoder, b"", done)


def _decode(decoder: io.IncrementalNewlineDecoder, chunk: bytes, done: int) -> str:
    try:
        return decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:  # error.object is the chunk behind the bytes held back
        raise _not_utf8(done - len(error.object) + error.start) from None


def _not_utf8(offset: int) -> Flaw:
    return Flaw(f"byte {offset}: not UTF-8; convert the file, or take it away")
