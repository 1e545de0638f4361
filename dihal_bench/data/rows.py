"""Files of rows -> rows, and rows -> documents: one column of a row is a document.

The column holds a string, kept as it is, or a chat: a list of messages, each with the strings
``role`` and ``content``. A chat becomes text when it is tokenised, by the tokenizer's template.
Half a surrogate pair, which no encoding can hold, becomes U+FFFD.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, BinaryIO

from dihal_bench.data.decoding import CHUNK, Flaw, lines, pieces

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMN = "text"  # that is read where none is named

_SURROGATE = re.compile("[\ud800-\udfff]")
_OPENING, _NEXT = re.compile(r"\s*\[\s*(\]?)"), re.compile(r"\s*(\]|,)\s*")  # of an array
_ROWS = 64  # of a table that are in memory at a time

Row = tuple[str, Any]  # the place in the file, and what is there: a mapping, if all is well


class Chat(str):
    """The messages of a chat, as JSON: a document whose text depends on the tokenizer."""

    __slots__ = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        """Role and content of every message."""
        return json.loads(self)  # type: ignore[no-any-return]


def documents(rows: Iterable[Row], column: str) -> Iterator[str]:
    """Yield the document of every row.

    Args:
        rows: with their places.
        column: its name; ``a.b`` is the column ``b`` of the mapping in ``a``.

    Raises:
        Flaw: a row has neither a string nor a chat there.
    """
    for place, row in rows:
        value: Any = _value(row, column) if isinstance(row, Mapping) else None
        if isinstance(value, str):
            yield _SURROGATE.sub("\ufffd", value)
        elif _is_chat(value):
            messages = [{name: message[name] for name in ("role", "content")} for message in value]
            yield Chat(_SURROGATE.sub("\ufffd", json.dumps(messages, ensure_ascii=False)))
        else:
            raise Flaw(f"{place}: {missing(row, column)}")


def missing(row: object, column: str) -> str:
    """Say that there is no document in a row, and what there is."""
    there = ", ".join(map(str, row)) if isinstance(row, Mapping) else ""
    found = f"the columns are {there}" if there else "it has no columns"
    return (
        f'no string called "{column}" and no chat ({found}); name the column of the text with '
        "--text-column"
    )


def _value(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    first, _, rest = column.partition(".")
    inner = row.get(first)
    return _value(inner, rest) if rest and isinstance(inner, Mapping) else None


def _is_chat(value: Any) -> bool:
    """Whether something is a list of messages of text."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        return False
    parts = [item.get(name) for item in value for name in ("role", "content")]
    return bool(parts) and all(isinstance(part, str) for part in parts)


def json_rows(file: BinaryIO, column: str) -> Iterator[Row]:
    """Yield the rows of JSON: one object per line, or one array of objects.

    Raises:
        Flaw: it is neither, or not UTF-8.
    """
    whole = io.BufferedReader(file)  # type: ignore[type-var]
    is_array = whole.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    return _array(whole) if is_array else json_lines(whole)


def json_lines(file: BinaryIO) -> Iterator[Row]:
    """Yield what is in every line of JSON lines; empty lines are passed over.

    Raises:
        Flaw: a line is not UTF-8 or not JSON.
    """
    for number, line in enumerate(lines(file), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = f"line {number}: not JSON ({error}); write one object per line"
                raise Flaw(reason) from None
            del line  # it may be long, and is not needed while the value is
            yield f"line {number}", value


def _array(file: BinaryIO) -> Iterator[Row]:
    """Yield the items of a JSON array; a piece of the file is in memory at a time."""
    source = pieces(file, translate=False)
    decode = json.JSONDecoder().raw_decode
    text, at, mark = "", 0, _OPENING
    for number in count(1):
        while True:
            match = mark.match(text, at)
            try:
                if match is None:
                    raise ValueError("no comma behind the item before")
                if match[1] == "]":
                    return
                value, at = decode(text, match.end())
                break
            except (ValueError, RecursionError) as error:
                text, at = text[at:], 0
                more = list(islice(source, 1 + len(text) // CHUNK))  # an item may be long
                if not more:
                    reason = f"item {number}: not JSON ({getattr(error, 'msg', error)})"
                    raise Flaw(f"{reason}; give a whole array of objects") from None
                text += "".join(more)
        mark = _NEXT
        yield f"item {number}", value


def csv_rows(file: BinaryIO, column: str, *, delimiter: str = ",") -> Iterator[Row]:
    """Yield the rows of a table whose first line names the columns.

    Raises:
        Flaw: it is not UTF-8, or a line does not fit to the first.
    """
    csv.field_size_limit(sys.maxsize)  # a document may be long
    table = csv.reader(lines(file), delimiter=delimiter, strict=True)
    try:
        names = next(table, [])
        if names:
            _check(names, column)
        for cells in table:
            if cells and len(cells) != len(names):
                reason = f"{len(cells)} cells under {len(names)} columns"
                raise Flaw(f"line {table.line_num}: {reason}; quote cells that hold a separator")
            if cells:
                yield f"line {table.line_num}", dict(zip(names, cells, strict=True))
    except csv.Error as error:
        reason = f"line {table.line_num}: no table ({error})"
        raise Flaw(f"{reason}; write quotes inside a quoted cell twice") from None


def parquet_rows(file: BinaryIO, column: str) -> Iterator[Row]:
    """Yield the rows of a Parquet file, of which only the column is read.

    Raises:
        Flaw: there is no such column.
    """
    from pyarrow import parquet

    table = parquet.ParquetFile(file)
    own = _check(table.schema_arrow.names, column)
    return _numbered(table.iter_batches(batch_size=_ROWS, columns=[own]))


def arrow_rows(file: BinaryIO, column: str) -> Iterator[Row]:
    """Yield the rows of an Arrow file, or of an Arrow stream, as ``datasets`` writes them.

    Raises:
        Flaw: there is no such column.
    """
    from pyarrow import ipc

    if file.read(6) == b"ARROW1":
        whole = ipc.open_file(file)
        batches = (whole.get_batch(index) for index in range(whole.num_record_batches))
        own = _check(whole.schema.names, column)
    else:
        file.seek(0)
        batches = iter(stream := ipc.open_stream(file))
        own = _check(stream.schema.names, column)
    return _numbered(
        batch.select([own]).slice(first, _ROWS)
        for batch in batches
        for first in range(0, batch.num_rows, _ROWS)
    )


def _numbered(batches: Iterable[Any]) -> Iterator[Row]:
    rows = chain.from_iterable(batch.to_pylist() for batch in batches)
    return ((f"row {number}", row) for number, row in enumerate(rows, 1))


def _check(names: list[str], column: str) -> str:
    """Return the column of a table that holds the one that is asked for.

    Raises:
        Flaw: there is none.
    """
    own = column if column in names else column.partition(".")[0]
    if own not in names:
        raise Flaw(missing(dict.fromkeys(names), column))
    return own
