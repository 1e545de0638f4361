"""What a corpus is to the rest of the package: named streams of documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Text in disjoint sets of documents.

    Attributes:
        name: what the user asked for, as the record shows it.
        fingerprint: short hash of the content (of the source and split, for streamed text).
        splits: set name ("train", "validation", perhaps "models") to a function that opens the stream.
        notes: facts for the record (near-duplicate rates, versions).
    """

    name: str
    fingerprint: str
    splits: dict[str, Callable[[], Iterator[str]]]
    notes: dict[str, object]
