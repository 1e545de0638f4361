"""Near-duplicate paragraphs: pairs whose sets of 8-grams have a Jaccard index above one half."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every power is a bijection modulo 2**64


def near_duplicates(
    kept: Sequence[str], others: Sequence[str], *, order: int = 8, threshold: float = 0.5
) -> NDArray[np.bool_]:
    """Mark which of ``others`` are near-duplicates of any of ``kept``. Exact, not a sketch.

    Candidates come from prefix filtering: two sets with Jaccard index >= t share one of the
    ``size - ceil(t * size) + 1`` rarest elements of each (Chaudhuri et al., 2006), which keeps
    boilerplate, present everywhere, out of the join.

    Args:
        kept: paragraphs that stay.
        others: paragraphs to compare with them; one shorter than ``order`` words has no n-gram and
            is never marked.
        order: words per n-gram.
        threshold: the pair is marked when its Jaccard index is greater than this.

    Returns:
        Boolean array, one entry per paragraph of ``others``.
    """
    marked = np.zeros(len(others), dtype=bool)
    if not len(kept) or not len(others):
        return marked
    grams = _gram_matrix([*kept, *others], order)
    rare = _rarest(grams, threshold)
    shared = (rare[: len(kept)] @ rare[len(kept) :].T).tocoo()
    left, right = shared.row, shared.col + len(kept)
    size = np.diff(grams.indptr)
    for lo in range(0, len(left), 50_000):
        i, j = left[lo : lo + 50_000], right[lo : lo + 50_000]
        overlap = np.asarray(grams[i].multiply(grams[j]).sum(axis=1)).ravel()
        jaccard = overlap / (size[i] + size[j] - overlap)
        marked[j[jaccard > threshold] - len(kept)] = True
    return marked


def _gram_matrix(texts: Sequence[str], order: int) -> csr_array:
    """Binary matrix texts x distinct n-grams; columns go from the rarest n-gram to common ones."""
    from scipy.sparse import csr_array

    vocabulary: dict[str, int] = {}
    words = [
        [vocabulary.setdefault(word, len(vocabulary) + 1) for word in text.lower().split()]
        for text in texts
    ]
    length = np.array([len(text) for text in words])
    flat = np.array([word for text in words for word in text], dtype=np.uint64)
    code = np.zeros(max(len(flat) - order + 1, 0), dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        for offset in range(order):
            code = code * _MULTIPLIER + flat[offset : offset + len(code)] * _MULTIPLIER
    text_of = np.repeat(np.arange(len(texts)), length)
    inside = text_of[: len(code)] == text_of[order - 1 :]  # not across the end of a text
    _, column, count = np.unique(code[inside], return_inverse=True, return_counts=True)
    rank = np.empty(len(count), dtype=np.int64)
    rank[np.argsort(count, kind="stable")] = np.arange(len(count))
    shape = (len(texts), max(len(count), 1))
    entries = (np.ones(len(column), dtype=np.int32), (text_of[: len(code)][inside], rank[column]))
    matrix = csr_array(entries, shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    matrix.sort_indices()
    return matrix


def _rarest(grams: csr_array, threshold: float) -> csr_array:
    """Keep in every row the prefix of rarest n-grams that a similar row must share."""
    from scipy.sparse import csr_array

    size = np.diff(grams.indptr)
    keep = size - np.ceil(threshold * size).astype(np.int64) + 1
    place = np.arange(grams.nnz) - np.repeat(grams.indptr[:-1], size)
    chosen = place < np.repeat(keep, size)
    rows = np.repeat(np.arange(grams.shape[0]), size)[chosen]
    return csr_array((grams.data[chosen], (rows, grams.indices[chosen])), shape=grams.shape)


_CACHE = 2**16  # KiB of the database in memory; beyond that it lies in a temporary file
_HALF = 2**63  # unsigned keys are stored as the signed numbers that SQLite has


class Keys:
    """A set of 64-bit keys that a corpus of any size can fill."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("", check_same_thread=False)  # of one reader at a time
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute(f"PRAGMA cache_size = -{_CACHE}")
        self._table.execute("CREATE TABLE keys (key INTEGER PRIMARY KEY)")

    def add(self, key: int) -> bool:
        """Add a key in 0 .. 2**64 - 1; return whether it is new."""
        added = self._table.execute("INSERT OR IGNORE INTO keys VALUES (?)", (key - _HALF,))
        return added.rowcount == 1

    def __contains__(self, key: int) -> bool:
        """Return whether a key is in the set."""
        return self._one("SELECT count(*) FROM keys WHERE key = ?", key - _HALF) == 1

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._one("SELECT count(*) FROM keys")

    def below(self, key: int) -> int:
        """Return the number of keys that are less than this one, of 0 .. 2**64 - 1."""
        return self._one("SELECT count(*) FROM keys WHERE key < ?", key - _HALF)

    @property
    def least(self) -> int:
        """The lowest key of a set that is not empty."""
        return self._one("SELECT min(key) FROM keys") + _HALF

    @property
    def greatest(self) -> int:
        """The highest key of a set that is not empty."""
        return self._one("SELECT max(key) FROM keys") + _HALF

    def _one(self, query: str, *values: int) -> int:
        found: int = self._table.execute(query, values).fetchone()[0]
        return found
