"""Numbers of a block's rows and of pairs of them; all share the resamples."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.evaluation.intervals import DocumentBootstrap, holding
from dihal_bench.evaluation.likelihood import TEACHER
from dihal_bench.results.metrics import BRIER1, NLL, base_name
from dihal_bench.results.table import TableCell, TableRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.evaluation.intervals import Ratio
    from dihal_bench.evaluation.likelihood import Totals
    from dihal_bench.results.metrics import Metric
    from dihal_bench.results.table import Estimate
    from dihal_bench.studies.comparison.pool import Key, SeedPool

_APART = 2  # trainings of each, to know what trainings differ by
_KEPT = 1024  # ratios with their resamples, 16 kB each


class Paired:
    """Estimates over the trainings and documents of a pool."""

    def __init__(self, pool: SeedPool, *, resamples: int):
        self.pool = pool
        tokens = self._any(pool.teacher()).tokens
        self._bootstrap = DocumentBootstrap(len(tokens), resamples=resamples)
        self.tokens = int(tokens.sum())
        self._known: dict[tuple[Key, str, tuple[int, ...]], Ratio] = {}

    def sizes(self, key: Key) -> list[int]:
        """Return the sizes of ensembles that a row has an NLL of."""
        return NLL.sizes(self._any(key).sums)

    def _any(self, key: Key) -> Totals:
        return next(iter(self.pool.totals[key].values()))

    def mean(self, key: Key, metric: Metric, chains: int) -> Estimate | None:
        """Estimate a metric that is a mean over tokens, of so many of a row's chains.

        None: it is not of so many, or not all of the row's records have it.
        """
        name = metric.sum_of(chains, key.row.chains)
        if not all(name in own.sums for own in self.pool.totals[key].values()):
            return None
        return self._estimate(key, metric, name)

    def nll(self, key: Key, chains: int) -> Estimate:
        """Estimate the NLL of ensembles of so many chains, nats per token."""
        return self._estimate(key, NLL, NLL.at(chains))

    def _estimate(self, key: Key, metric: Metric, name: str) -> Estimate:
        """Estimate a mean; Student's interval ends where the metric's range does."""
        own = self._bootstrap.estimate(self._of(key, name, tuple(self.pool.seeds(key))))
        low, high = metric.range
        return holding(own.value, max(own.lo, low), min(own.hi, high))

    def likely(self, key: Key) -> bool:
        """Whether the row's run has an NLL of it: not every recovery is a distribution."""
        data = self.pool.first(key.interface)
        return any(
            s["subject"] == key.row.subject
            and base_name(s["metric"]) == NLL.key
            and s["task"] not in data.get("tasks", {})
            for s in data["scores"]
        )

    def nll_difference(self, one: tuple[Key, int], other: tuple[Key, int]) -> Estimate | None:
        """Estimate the NLL of one row's ensembles minus another's; None: too few seeds."""
        (first, chains), (second, size) = one, other
        return self._difference((first, NLL.at(chains)), (second, NLL.at(size)))

    def brier_difference(self, one: Key, other: Key) -> Estimate | None:
        """Estimate the Brier-1 of one row minus another's; None: too few seeds."""
        return self._difference((one, BRIER1.key), (other, BRIER1.key))

    def better(self, keys: Sequence[Key]) -> dict[Key, set[Key]]:
        """Return for every row those that have a surely higher Brier-1.

        Args:
            keys: rows of two trainings or more.
        """
        found: dict[Key, set[Key]] = {key: set() for key in keys}
        alike: dict[tuple[int, ...], list[Key]] = defaultdict(list)
        for key in keys:
            alike[tuple(self.pool.seeds(key))].append(key)
        for seeds, own in alike.items():
            above = self._bootstrap.surely_above([self._of(key, BRIER1.key, seeds) for key in own])
            for i, j in np.argwhere(above):
                found[own[j]].add(own[i])
        for one, other in itertools.permutations(alike, 2):
            for key, rival in itertools.product(alike[one], alike[other]):
                difference = self.brier_difference(rival, key)
                if difference is not None and difference.lo > 0:
                    found[key].add(rival)
        return found

    def _difference(self, one: tuple[Key, str], other: tuple[Key, str]) -> Estimate | None:
        """Estimate a difference, paired over trainings where both have the same seeds.

        Where they have not, and are not of one run, their trainings are independent.
        """
        first, second = (tuple(self.pool.seeds(key)) for key, _ in (one, other))
        common = tuple(self.pool.seeds(one[0], other[0]))
        if first == second or one[0].interface == other[0].interface:
            if not common:
                return None
            return self._bootstrap.estimate(self._of(*one, common) - self._of(*other, common))
        if min(len(first), len(second)) < _APART:
            return None
        return self._bootstrap.estimate_apart(self._of(*one, first), self._of(*other, second))

    def _of(self, key: Key, metric: str, seeds: tuple[int, ...]) -> Ratio:
        """Return a row's metric over some of its seeds; most are asked for several times."""
        name = key, metric, seeds
        if name not in self._known:
            if len(self._known) >= _KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[name] = self._bootstrap.of(*self.pool.stacked(key, metric, seeds))
        return self._known[name]


def pairs(paired: Paired, block: str) -> list[TableRow]:
    """Return every interface, at every number of steps, against every other row of its own runs.

    Differences are the interface's minus the other's: of the NLL below zero where it does better,
    of Brier-1 above.
    """
    keys = [key for key in paired.pool.totals if key.row.subject != TEACHER]
    return [
        _pair(paired, block, key, other)
        for key in keys
        for other in keys
        if key.leads and not other.leads and other.interface == key.interface
        if other.control or other.row.steps == key.row.steps
    ]


def _pair(paired: Paired, block: str, key: Key, other: Key) -> TableRow:
    """Compare ensembles of one size with a trial, the whole ensemble with a control's one chain."""
    chains = paired.sizes(key)[-1]
    if not other.control:
        chains = min(chains, paired.sizes(other)[-1])
    likely = paired.likely(key) and paired.likely(other)
    sizes = (key, chains), (other, 1 if other.control else chains)
    return TableRow(
        cells={
            "block": block,
            "row": key.interface,
            "steps": key.row.steps,
            "chains": chains,
            "against": other.row.subject if other.control else paired.pool.name(other),
            NLL.name: TableCell.of(paired.nll_difference(*sizes) if likely else None),
            BRIER1.name: TableCell.of(paired.brier_difference(key, other)),
        }
    )
