"""What a corpus is to the rest of the package: named streams of documents."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dihal_bench.data.dedup import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

TENTH = 2**64 // 10  # of the range of content_hash: the usual share of the validation set


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Text in disjoint sets of documents.

    Attributes:
        name: what the user asked for, as the record shows it.
        fingerprint: short hash of the content (of the source and revision, for streamed text).
        splits: set name ("train", "validation", perhaps "models") to a function that opens the
            stream afresh.
        notes: facts for the record (counts, near-duplicate rates, versions).
    """

    name: str
    fingerprint: str
    splits: Mapping[str, Callable[[], Iterator[str]]]
    notes: dict[str, object]


def content_hash(text: str) -> int:
    """Return 64 bits that depend on the text alone, not on the process, platform or order."""
    digest = hashlib.blake2b(digest_size=8)
    for part in _parts(text):
        digest.update(part.encode())
    return int.from_bytes(digest.digest(), "big")


def twin_hash(text: str) -> int:
    """Return 64 bits that two documents share if they agree but for white space, form or case.

    White space includes line ends; the form is that of Unicode (NFKC).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in _parts(text):
        if part.isascii():
            plain = part.lower()
        else:
            plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", part).casefold())
            for space in _WIDE_SPACES:
                plain = plain.replace(space, "")
        digest.update(plain.encode().translate(None, _SPACES))
    return int.from_bytes(digest.digest(), "big")


def _parts(text: str) -> Iterator[str]:
    """Cut a text in front of ASCII characters, which combine with nothing before them."""
    begin = 0
    while begin < len(text):
        match = _ASCII.search(text, begin + _PART)
        end = match.start() if match else len(text)
        yield text[begin:end]
        begin = end


_PART = 1 << 16  # characters that are copied at a time
_ASCII = re.compile(r"[\x00-\x7f]")
_SPACES = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f "
_WIDE_SPACES = "\x85\u1680\u2028\u2029"  # NFKC makes plain ones of all others


def deal(texts: Iterable[str], *, held_out: bool, cut: int = TENTH) -> Iterator[str]:
    """Yield one of the two sets of text that comes without sets of its own.

    The content decides: a document is held out if its hash is below ``cut``. So the sets depend on
    no order, grow with the corpus, and never share a document. Of documents that agree but for
    white space, form or case, the first is yielded, in its set, and the others count as repeated;
    for that hashes are kept, on disk where there are many. Blank documents pass, for ``pack`` to
    count.

    Args:
        texts: the documents.
        held_out: whether the set is the validation set.
        cut: share of the validation set, in units of 2**-64.
    """
    seen = Keys()
    for text in texts:
        is_new = seen.add(twin_hash(text))
        if (content_hash(text) < cut) == held_out and (is_new or not text.strip()):
            yield text


def apart(texts: Iterable[str], others: Iterable[str]) -> Iterator[str]:
    """Yield the texts that are none of the others, but for white space, form or case."""
    taken = Keys()
    for text in others:
        taken.add(twin_hash(text))
    for text in texts:
        if twin_hash(text) not in taken or not text.strip():
            yield text
