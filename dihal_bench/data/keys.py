"""Which documents were seen before, without holding a key of each in memory."""

from __future__ import annotations

import sqlite3

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
