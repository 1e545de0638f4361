"""What a metric is, and the registry of all: ``results.metrics`` declares those of the suite.

Who computes a metric finds its unit here, who checks a record what it must hold, and who makes a
table its columns. Other distributions (entry points ``dihal_bench.metrics``) and files of
``--include`` declare theirs by ``METRICS.register(Metric(...))`` as the suite does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Flag, auto
from typing import TYPE_CHECKING, Any

from dihal_bench.core import registry
from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

HIGHER, LOWER = "higher", "lower"
SEQUENCE_PREFIX = "first_token_"  # begins the names of metrics in the sequence regime
ANY = (-math.inf, math.inf)


class Shown(Flag):
    """Tables that list metrics as columns; task tables have whatever a task measured."""

    NOWHERE = 0
    RUN = auto()
    COMPARISON = auto()
    LEADERBOARD = auto()
    CARD = auto()
    EVERYWHERE = RUN | COMPARISON | LEADERBOARD | CARD


class Sums(Flag):
    """Which sums of a row's chains a record keeps of a metric."""

    WHOLE = auto()  # KEY: of all chains together
    SINGLE = auto()  # KEY_chain: the mean over single chains
    SIZES = auto()  # KEY@K: of ensembles of K = 1, 2, 4, ... chains


@dataclass(frozen=True, kw_only=True)
class PerToken:
    """A metric that is a mean over tokens: a record keeps its sums per document.

    Attributes:
        sums: which of them there are.
        likelihood: only for rows whose recovery may be scored as a distribution.
        of_teacher: the teacher has a score; else it is held against the teacher.
        itself: every token's value where the teacher is held against itself, if that is known.
        ties: rounding may move that value in a mixture of chains.
        unbiased: estimated without bias from any number of chains, so of kind "estimate".
        compute: the value of every token, float [targets], from log-probabilities [targets, V] of
            a row, those of the teacher, and the true tokens [targets]; None: the scorer's own.
    """

    sums: Sums = Sums.WHOLE
    likelihood: bool = False
    of_teacher: bool = False
    itself: float | None = None
    ties: bool = False
    unbiased: bool = False
    compute: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Metric:
    """What a metric is.

    Attributes:
        key: name in records and code.
        title: name in tables.
        help: what it is, in a sentence.
        unit: of the value.
        better: "higher", "lower", or None: neither, or as near as can be to real text's.
        digits: after the point.
        range: least and largest value, of every token too where it is a mean over tokens.
        mean: how it follows from sums per document; None: it does not, or by code of its own.
        since: version of the records that must have it; None: every record may lack it.
        likelihood: values of different kinds (exact, ensemble) must not be ranked by it.
        bound: of a likelihood, which it does not stand beside.
        ranked: rows are ranked by it.
        signed: a difference, shown with its sign.
        wide: shown with its interval even in narrow tables.
        brief: shown on the leaderboard's pages; False: in its CSV files alone.
        shown: tables that have a column of it.
        column: key of its column there, if another.
        of_samples: measures generated text (``evaluation.samples.settings``); of plug-ins.
        known: declared; False: only a record names it.
        place: where it was declared.
    """

    key: str
    title: str
    help: str
    unit: str = field(kw_only=True)
    better: str | None = field(default=None, kw_only=True)
    digits: int = field(default=4, kw_only=True)
    range: tuple[float, float] = field(default=ANY, kw_only=True)
    mean: PerToken | None = field(default=None, kw_only=True)
    since: int | None = field(default=None, kw_only=True)
    likelihood: bool = field(default=False, kw_only=True)
    bound: bool = field(default=False, kw_only=True)
    ranked: bool = field(default=False, kw_only=True)
    signed: bool = field(default=False, kw_only=True)
    wide: bool = field(default=False, kw_only=True)
    brief: bool = field(default=True, kw_only=True)
    shown: Shown = field(default=Shown.NOWHERE, kw_only=True)
    column: str = field(default="", kw_only=True)
    of_samples: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    known: bool = field(default=True, kw_only=True)
    place: registry.Declaration | None = field(
        default=None, kw_only=True, compare=False, repr=False
    )

    @property
    def name(self) -> str:
        """The key of its column."""
        return self.column or self.key

    def sums(self, chains: int) -> list[str]:
        """Return the names of its sums, of a row of so many chains (a power of two)."""
        own = self.mean.sums if self.mean else Sums(0)
        sizes = [2**power for power in range(chains.bit_length())] if Sums.SIZES in own else []
        plain = {self.key: Sums.WHOLE, self.single: Sums.SINGLE}
        return [*(n for n, flag in plain.items() if flag in own), *map(self.at, sizes)]

    @property
    def single(self) -> str:
        """The name of its sum that is a mean over single chains."""
        return f"{self.key}_chain"

    def at(self, size: int) -> str:
        """Return the name of the sum of its ensembles of one size."""
        return f"{self.key}@{size}"

    def sizes(self, names: Iterable[str]) -> list[int]:
        """Return the sizes of ensembles among the names of sums."""
        parts = (name.partition("@") for name in names)
        return sorted(int(size) for key, at, size in parts if at and key == self.key)

    def sum_of(self, size: int, chains: int) -> str:
        """Return the name of the sum of ``size`` chains out of so many; empty: there is none."""
        own = self.mean.sums if self.mean else Sums(0)
        if Sums.SIZES in own:
            return self.at(size)
        if Sums.SINGLE in own and size == 1:
            return self.single
        return self.key if Sums.WHOLE in own and size == chains else ""


class Metrics:
    """All metrics in the order of their declaration; plug-ins come last."""

    def __init__(self, entries: registry.Registry):
        self._registry = entries

    def register(self, metric: Metric) -> Metric:
        """Declare a metric, and return it.

        Raises:
            UserError: its key is taken by a metric declared elsewhere, or can be no name.
        """
        placed = replace(metric, place=registry.Declaration.of_caller(1))
        self._registry.register(metric.key)(placed)
        return placed

    def __getitem__(self, key: str) -> Metric:
        """Return a metric.

        Raises:
            UserError: there is none of that key; the message suggests the nearest.
        """
        found = self._registry.get(key)
        if not isinstance(found, Metric) or found.key != key:
            raise UserError(
                f"metric {key!r} is {self._registry.origin(key)}, which is no Metric of that key; "
                "name the entry point after the metric that it registers."
            )
        return found

    def __contains__(self, key: object) -> bool:
        return key in self._registry.entries()

    def __iter__(self) -> Iterator[Metric]:
        return (self[key] for key in self._registry.entries())

    def named(self, name: str, unit: str = "") -> Metric:
        """Return the metric that a score names, or what is known of one that is not declared.

        Args:
            name: of a score's metric, with a regime's prefix or a filter.
            unit: of the score.
        """
        key = base_name(name)
        if key in self:
            return self[key]
        return Metric(key, key.replace("_", " "), f"{name}, {unit}", unit=unit, known=False)

    def sums(self, chains: int) -> dict[str, Metric]:
        """Return all sums that a row of so many chains may have, with the metrics they are of."""
        return {name: metric for metric in self for name in metric.sums(chains)}

    def shown_in(self, table: Shown) -> list[Metric]:
        """Return the metrics that a table has a column of."""
        return [metric for metric in self if table in metric.shown]


def base_name(name: str) -> str:
    """Return the key of a metric as scores name it: without its regime and filter."""
    return name.removeprefix(SEQUENCE_PREFIX).partition(",")[0]


METRICS = Metrics(registry.METRICS)
