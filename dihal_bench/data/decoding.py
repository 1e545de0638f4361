"""Bytes -> UTF-8 text, by the line or by the piece; a flaw names the byte."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTE_ORDER_MARK = "\ufeff"
CHUNK = 1 << 16  # bytes read at a time


class Flaw(ValueError):
    """What is wrong at which place of a file, and the remedy."""


def lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a file with their ends, without the byte order mark.

    Raises:
        Flaw: a line is not UTF-8.
    """
    offset = 0
    for line in file:
        try:
            decoded = line.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8(offset + error.start) from None
        if not offset:
            decoded = decoded.removeprefix(BYTE_ORDER_MARK)
        offset += len(line)
        del line  # it may be long, and is not needed while the text is
        yield decoded


def pieces(file: BinaryIO, *, translate: bool) -> Iterator[str]:
    """Yield a file's text piece by piece, without the byte order mark.

    Args:
        file: the bytes.
        translate: whether every line end becomes a line feed.

    Raises:
        Flaw: the file is not UTF-8.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=translate)
    done = 0
    while chunk := file.read(CHUNK):
        start, done = done, done + len(chunk)
        text = _decode(decoder, chunk, done)
        yield text if start else text.removeprefix(BYTE_ORDER_MARK)
    yield _decode(decoder, b"", done)


def _decode(decoder: io.IncrementalNewlineDecoder, chunk: bytes, done: int) -> str:
    try:
        return decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:  # error.object is the chunk behind the bytes held back
        raise _not_utf8(done - len(error.object) + error.start) from None


def _not_utf8(offset: int) -> Flaw:
    return Flaw(f"byte {offset}: not UTF-8; convert the file, or take it away")
