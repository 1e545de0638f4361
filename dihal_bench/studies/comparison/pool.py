"""The rows of a comparison with the sums of all seeds behind them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.document_sums import from_plain
from dihal_bench.evaluation.likelihood import SAMPLED, TEACHER, TRUE, Row
from dihal_bench.results.metrics import NLL
from dihal_bench.results.record import own_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dihal_bench.evaluation.intervals import Array
    from dihal_bench.evaluation.likelihood import Totals
    from dihal_bench.results.record import Record


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
class SeedPool:
    """Rows that were measured on the same tokens: one block of a table.

    Attributes:
        totals: key -> seed -> sums per document.
        records: interface label -> seed -> record.
    """

    totals: dict[Key, dict[int, Totals]] = field(default_factory=lambda: defaultdict(dict))
    records: dict[str, dict[int, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def gather(cls, named: Iterable[tuple[str, Record]]) -> SeedPool:
        """Take the sums of records, each under the label of its interface.

        Raises:
            UserError: two were not scored on the same documents, or are of one label and seed.
        """
        pool = cls()
        documents = None
        for label, record in named:
            data = record.data
            seed = data["config"]["seed"]
            if seed in pool.records[label]:
                raise UserError(
                    f"{data['id']} is a second run of {label} with seed {seed}; leave one out."
                )
            pool.records[label][seed] = data
            for row, totals in from_plain(data["sums"]).items():
                if row.signal == TRUE:  # the table has more of it, in columns of its own
                    continue
                documents = totals.tokens if documents is None else documents
                if not np.array_equal(documents, totals.tokens):
                    raise UserError(
                        f"{data['run']} was scored on other tokens than the rest; delete it and "
                        "issue the command again."
                    )
                pool.totals[Key(interface=label, row=row)][seed] = totals
        return pool

    def seeds(self, *keys: Key) -> list[int]:
        """Return the seeds that all of these rows have."""
        own = [set(self.totals[key]) for key in keys]
        return sorted(set.intersection(*own)) if own else []

    def first(self, label: str) -> dict[str, Any]:
        """Return an interface's record of its lowest seed."""
        return self.records[label][min(self.records[label])]

    def stacked(self, key: Key, metric: str, seeds: Sequence[int]) -> tuple[Array, Array]:
        """Return sums of a metric and of tokens, [seeds, documents]."""
        parts = [self.totals[key][seed].per_token(metric) for seed in seeds]
        return np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts])

    def traits(self, key: Key) -> dict[str, Any]:
        """Return what the first record says of a row's kind: a score of it, as plain values."""
        data, row = self.first(key.interface), key.row
        wanted = own_task(data), row.subject, row.steps, row.signal
        for score in data["scores"]:
            if tuple(score[name] for name in ("task", "subject", "steps", "signal")) == wanted:
                return dict(score)
        raise UserError(f"{data['id']}: no score is of the row of {row.subject} in its sums.")

    @cached_property
    def rows(self) -> list[Key]:
        """All rows but the teacher, interfaces before their controls, each subject once.

        A control of several interfaces that came out the same to the bit is one row.
        """
        return list(self._owners)

    def owners(self, key: Key) -> list[str]:
        """Return the interfaces that a row is of, or is a control of; the teacher is of none."""
        return self._owners.get(key, [])

    @cached_property
    def _owners(self) -> dict[Key, list[str]]:
        """The interfaces of every row."""
        found: dict[Any, list[Key]] = defaultdict(list)
        for key, sums in self.totals.items():
            if key.row.subject != TEACHER:
                same = [(seed, own.sums[NLL.at(1)].tobytes()) for seed, own in sorted(sums.items())]
                found[(key.row, tuple(same)) if key.control else key].append(key)
        return {keys[0]: [key.interface for key in keys] for keys in found.values()}

    @cached_property
    def _alike(self) -> Counter[Row]:
        """How many rows are of one subject in the same way."""
        return Counter(key.row for key in self.rows)

    def teacher(self) -> Key:
        """Return the teacher's row."""
        return next(key for key in self.totals if key.row.subject == TEACHER)

    def origins(self) -> list[str]:
        """Return what code the runs were made by: version and commit."""
        found = [r["environment"] for own in self.records.values() for r in own.values()]
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
        beside = f" (beside {key.interface})" if self._alike[key.row] > 1 else ""
        return f"{key.row.subject}{beside}"
