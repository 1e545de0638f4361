"""The rows of a comparison with the sums of all seeds behind them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.errors import UserError
from dihal_bench.records import Record
from dihal_bench.scoring.likelihood import SAMPLED, TEACHER, TRUE, Row
from dihal_bench.scoring.sums import from_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.comparison.plan import Entry
    from dihal_bench.scoring.intervals import Array
    from dihal_bench.scoring.likelihood import Totals


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a row of a block is called.

    Attributes:
        interface: label of the interface in whose run it was measured.
        row: subject, steps, chains, signal.
    """

    interface: str
    row: Row

    @property
    def control(self) -> bool:
        """Whether it stands beside an interface."""
        return self.row.subject != self.interface.partition(" ")[0]

    @property
    def leads(self) -> bool:
        """Whether it is an interface with its own signal: what all other rows are there for."""
        return not self.control and self.row.signal == SAMPLED


@dataclass
class Pool:
    """One block of a table.

    Attributes:
        totals: key -> sums per document, one per seed.
        records: interface label -> records, one per seed.
        seeds: how many.
    """

    totals: dict[Key, list[Totals]] = field(default_factory=lambda: defaultdict(list))
    records: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    seeds: int = 0

    @classmethod
    def gather(cls, entries: Sequence[Entry]) -> Pool:
        """Read the runs of a block, seed by seed.

        Raises:
            UserError: one is not complete, or two were not scored on the same documents.
        """
        pool = cls()
        documents = None
        for entry in entries:
            record = Record.read(entry.folder / "record.json").data
            pool.records[entry.label].append(record)
            for row, totals in from_plain(record["sums"]).items():
                if row.signal == TRUE:  # the table has more of it, in columns of its own
                    continue
                documents = totals.tokens if documents is None else documents
                if not np.array_equal(documents, totals.tokens):
                    raise UserError(
                        f"{entry.folder} was scored on other tokens than the rest; delete it and "
                        "issue the command again."
                    )
                pool.totals[Key(interface=entry.label, row=row)].append(totals)
        pool.seeds = min((len(r) for r in pool.records.values()), default=0)
        return pool

    def stacked(self, key: Key, metric: str) -> tuple[Array, Array]:
        """Return sums of a metric and of tokens, [seeds, documents]."""
        parts = [totals.per_token(metric) for totals in self.totals[key][: self.seeds]]
        return np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts])

    def traits(self, key: Key) -> dict[str, Any]:
        """Return what the first record says of a row's kind: a score of it, as plain values."""
        for score in self.records[key.interface][0]["scores"]:
            if (score["subject"], score["steps"], score["signal"]) == (
                key.row.subject,
                key.row.steps,
                key.row.signal,
            ):
                return dict(score)
        return {"kind": "exact", "nfe": 0, "chains": 1}

    def rows(self) -> list[Key]:
        """Return all rows but the teacher, interfaces before their controls, each subject once.

        A control of several interfaces that came out the same to the bit is one row.
        """
        found: list[Key] = []
        for key in self.totals:
            if key.row.subject == TEACHER or any(self._same(key, other) for other in found):
                continue
            found.append(key)
        return found

    def teacher(self) -> Key:
        """Return the teacher's row."""
        return next(key for key in self.totals if key.row.subject == TEACHER)

    def origins(self) -> list[str]:
        """Return what code the runs were made by: version and commit."""
        found = [r["environment"] for records in self.records.values() for r in records]
        return sorted({f"dihal-bench {e['versions']['dihal-bench']} {e['git']}" for e in found})

    def role(self, key: Key) -> str:
        """Return what a row is there for: it is an "interface", a "control" or a "trial"."""
        return "interface" if key.leads else "control" if key.control else "trial"

    def name(self, key: Key) -> str:
        """Return what a row is called in a table."""
        trial = "" if key.row.signal == SAMPLED else f", signal {key.row.signal}"
        if key == self.teacher():
            return key.row.subject
        if not key.control:
            return f"{key.interface}{trial}"
        twins = [k for k in self.rows() if k.row == key.row and k.interface != key.interface]
        beside = f" (beside {key.interface})" if twins else ""
        return f"{key.row.subject}{beside}"

    def _same(self, one: Key, other: Key) -> bool:
        if one.row != other.row or not one.control:
            return False
        pair = zip(self.totals[one], self.totals[other], strict=False)
        return all(np.array_equal(a.sums["nll@1"], b.sums["nll@1"]) for a, b in pair)
