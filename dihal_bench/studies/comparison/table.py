"""The rows of a block: scores over all seeds, paired with the reference, and what they cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import counted
from dihal_bench.evaluation.likelihood import TEACHER
from dihal_bench.results.fields import CONVERGED, LEAST_SEEDS
from dihal_bench.results.metrics import (
    BLOCK_BOUND,
    BRIER1,
    DIFFUSION_GAIN,
    NLL,
    Shown,
)
from dihal_bench.results.table import (
    FEWER,
    OTHER_TASK,
    TIED,
    UNCONVERGED,
    TableCell,
    TableRow,
)
from dihal_bench.studies.comparison.columns import ranked_first
from dihal_bench.studies.comparison.plan import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dihal_bench.results.metric import Metric
    from dihal_bench.results.table import Value
    from dihal_bench.studies.comparison.paired import Paired
    from dihal_bench.studies.comparison.pool import Key, SeedPool


def lines(paired: Paired, block: str, *, reference: str | None = REFERENCE) -> list[TableRow]:
    """Return the rows of a block: the teacher, then interface by interface with its controls.

    Cells are those of ``columns.compared_columns``; None where a number has no
    meaning.

    Args:
        paired: differences of its rows.
        block: its name.
        reference: the interface that all rows are held against; None: no one.
    """
    own, pool = _Block(paired, block, reference), paired.pool
    rows = [(key, size) for key in pool.rows for size in dict.fromkeys((1, paired.sizes(key)[-1]))]
    return [_Row(own, key, chains).line() for key, chains in [(pool.teacher(), 1), *rows]]


@dataclass(frozen=True)
class _Standing:
    rank: int
    among: str
    ties: tuple[str, ...]


@dataclass(frozen=True)
class _Block:
    """What the rows of a block are held against."""

    paired: Paired
    name: str
    reference: str | None

    @cached_property
    def references(self) -> list[Key]:
        """The reference's own rows."""
        return [k for k in self.paired.pool.rows if k.leads and k.row.subject == self.reference]

    @cached_property
    def controls(self) -> dict[str, list[Key]]:
        """The rows of controls, by the interface beside which they stand."""
        found: dict[str, list[Key]] = defaultdict(list)
        for key in self.paired.pool.totals:
            if key.control and key.row.subject != TEACHER:
                found[key.interface].append(key)
        return found

    @cached_property
    def standings(self) -> dict[Key, _Standing]:
        """The ranks of interfaces, among those at equal steps that replace as many blocks."""
        pool = self.paired.pool
        peers: dict[tuple[int, int], list[Key]] = defaultdict(list)
        for key in pool.rows:
            if key.leads and len(pool.seeds(key)) >= LEAST_SEEDS:
                peers[key.row.steps, self.replaced(key)].append(key)
        found = {}
        for (steps, blocks), keys in peers.items():
            better = self.paired.better(keys)
            among = f"of {len(keys)}: S={steps}, {counted(blocks, 'block')}"
            for key in keys:
                ties = [k for k in keys if k not in better[key] and key not in better[k]]
                names = tuple(pool.name(k) for k in ties if k != key)
                found[key] = _Standing(1 + len(better[key]), among, names)
        return found

    def replaced(self, key: Key) -> int:
        """Return how many blocks a row stands in for: fewer is another, easier task."""
        return int(self.paired.pool.first(key.interface)["interface"]["replaced"])


@dataclass(frozen=True)
class _Row:
    """So many chains of one row of a block, and what its cells are made of."""

    block: _Block
    key: Key
    chains: int

    def line(self) -> TableRow:
        key, standing = self.key, self.standing
        gain, over = self._gain()
        cells: dict[str, Value] = {
            **self._costs(),
            **self._scores(gain),
            "row": self.pool.name(key),
            "interface": key.interface,
            "role": "teacher" if self.teacher else self.pool.role(key),
            "rank": TableCell(standing.rank, among=standing.among) if standing else None,
            "gain_over": over,
            "kind": "exact" if self.traits["kind"] == "exact" else f"ensemble({self.chains})",
            "bound": self._bound(),
            "block": self.block.name,
            **self._differences(),
            "course": "/".join(f"{value:.3f}" for value in self._course()) or None,
            "ties": "; ".join(standing.ties) if standing and standing.ties else None,
        }
        ties = standing.ties if standing else ()
        return TableRow(cells=cells, ties=ties, owners=self.pool.owners(key))

    @property
    def paired(self) -> Paired:
        return self.block.paired

    @property
    def pool(self) -> SeedPool:
        return self.block.paired.pool

    @property
    def teacher(self) -> bool:
        return self.key.row.subject == TEACHER

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of all seeds."""
        return list(self.pool.records[self.key.interface].values())

    @cached_property
    def traits(self) -> dict[str, Any]:
        return self.pool.traits(self.key)

    @property
    def nfe(self) -> int:
        return int(self.traits["nfe"] // self.traits["chains"] * self.chains)

    @property
    def standing(self) -> _Standing | None:
        """The row's rank, which is that of all its chains."""
        return self.block.standings.get(self.key) if self.chains == self.key.row.chains else None

    def _costs(self) -> dict[str, Value]:
        """Return what a row replaces, in how many evaluations, and what was spent on it."""
        key, first, records = self.key, self.pool.first(self.key.interface), self.records
        cost, replaced = first["costs"].get(key.row.subject), self.block.replaced(key)
        spent = [r["spent"].get(key.row.subject, {}) for r in records]
        phases = [phase for own in spent for phase in own.values()]
        within = key.control or all(r["budget"]["within"] for r in records)
        oracles = [] if key.control else [r["bridge"]["oracle"] for r in records]
        return {
            "replaced": None if self.teacher else replaced,
            "retained": None if self.teacher else first["backbone"]["blocks"] - replaced,
            "flop_ratio": cost["ratio"] if cost and cost["steps"] == key.row.steps else None,
            "steps": key.row.steps,
            "chains": self.chains,
            "nfe": 0 if self.teacher else self.nfe,
            "seeds": 1 if self.teacher else len(self.pool.seeds(key)),
            "n": self.paired.tokens,
            "diffusion_tokens": _most(spent, "diffusion"),
            "recovery_tokens": _most(spent, "recovery"),
            "trunk": cost["trunk_parameters"] if cost else 0,
            "recovery": cost["recovery_parameters"] + cost["other_parameters"] if cost else 0,
            "flops": sum(phase["flops"] for phase in phases) / len(records),
            "seconds": sum(phase["seconds"] for phase in phases) / len(records),
            "oracle": _mean(o["agreement"] for o in oracles),
            "sigma_half": _mean(o["sigma_half"] for o in oracles),
            "oracle_kl": _mean(o["kl"] for o in oracles),
            "budget": None if within else "outside",
        }

    def _course(self) -> Iterator[float | None]:
        """Yield mean Brier-1 over seeds, share by share."""
        points: dict[float, list[float]] = defaultdict(list)
        for record in self.records:
            for point in record["bridge"]["progress"]:
                if (point["subject"], point["steps"]) == (self.key.row.subject, self.key.row.steps):
                    points[point["share"]].append(point[BRIER1.key])
        return (_mean(points[share]) for share in sorted(points))

    def _scores(self, gain: TableCell | None) -> dict[str, Value]:
        """Return every metric that is a mean over tokens, and the diffusion gain."""
        tables = (Shown.LEADERBOARD, Shown.COMPARISON)
        shown = [m for table in tables for m in ranked_first(table) if not m.bound]
        return {
            metric.name: gain if metric is DIFFUSION_GAIN else self._mean_of(metric)
            for metric in sorted(shown, key=lambda metric: not metric.brief)
        }

    def _mean_of(self, metric: Metric) -> TableCell | None:
        """Return a mean over tokens; a distance to the teacher is not the teacher's own."""
        mean, likely = metric.mean, self.teacher or self.paired.likely(self.key)
        if not mean or (mean.likelihood and not likely) or (self.teacher and not mean.of_teacher):
            return None
        tied = metric.ranked and self.standing and self.standing.ties
        unsure = metric is NLL and self._unconverged()
        flags = (TIED if tied else "", UNCONVERGED if unsure else "")
        return TableCell.of(self.paired.mean(self.key, metric, self.chains), *flags)

    def _unconverged(self) -> bool:
        """Whether doubling the chains still moves the NLL."""
        if self.chains == 1:
            return False
        half, nll = (self.paired.nll(self.key, n).value for n in (self.chains // 2, self.chains))
        return half - nll >= CONVERGED

    def _gain(self) -> tuple[TableCell | None, str | None]:
        """Return what the noise bought over the best control, and its name."""
        key, pool, likely = self.key, self.pool, self.paired.likely
        if not key.leads or not likely(key):
            return None, None
        able = [
            k
            for k in self.block.controls.get(key.interface, ())
            if likely(k)
            and pool.traits(k)["nfe"] <= self.nfe
            and set(pool.seeds(key)) <= set(pool.seeds(k))
        ]
        if not able:
            return None, None
        best = min(able, key=lambda k: self.paired.nll(k, 1).value)
        over, fewer = best.row.subject, self._tokens(best) < self._tokens(key)
        gain = self.paired.nll_difference((best, 1), (key, self.chains))
        return TableCell.of(gain, FEWER if fewer else ""), over

    def _tokens(self, key: Key) -> int:
        """Return the tokens that a row was trained on, in all phases."""
        spent = self.pool.first(key.interface)["spent"].get(key.row.subject, {})
        return int(sum(phase["tokens"] for phase in spent.values()))

    def _bound(self) -> TableCell | None:
        wanted = BLOCK_BOUND.key, self.key.row.steps
        scores = (score for record in self.records for score in record["scores"])
        mean = _mean(s["value"] for s in scores if (s["metric"], s["steps"]) == wanted)
        return TableCell(mean) if mean is not None and self.chains == 1 and self.key.leads else None

    def _differences(self) -> dict[str, Value]:
        """Return differences to the reference, which stand in comparisons alone."""
        reference = self._reference()
        if reference is None:
            return {}
        other = reference[0]
        replaces = {self.block.replaced(key) for key in (self.key, other)}
        flag = OTHER_TASK if len(replaces) > 1 and not self.teacher else ""
        own, nll, brier = (self.key, self.chains), None, None
        if own != reference and (self.teacher or self.paired.likely(self.key)):
            nll = self.paired.nll_difference(own, reference)
        if self.chains == self.key.row.chains and other != self.key:
            brier = self.paired.brier_difference(self.key, other)
        return {"versus": TableCell.of(nll, flag), "brier1_versus": TableCell.of(brier, flag)}

    def _reference(self) -> tuple[Key, int] | None:
        """Return the reference's row at the same steps and chains, else its headline, one chain."""
        denoiser = self.key.interface.partition(" ")[2]
        own = [k for k in self.block.references if k.interface.partition(" ")[2] == denoiser]
        steps, chains = self.key.row.steps, self.chains
        same = [k for k in own if k.row.steps == steps and chains in self.paired.sizes(k)]
        if same and self.traits["kind"] != "exact":
            return same[0], chains
        return (own[-1], 1) if own else None


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean over seeds, None where one of them has no value, or there are none."""
    kept = list(values)
    known = [value for value in kept if value is not None]
    return sum(known) / len(known) if known and len(known) == len(kept) else None


def _most(spent: list[dict[str, Any]], phase: str) -> int:
    """Return the tokens of a phase, of the seed that saw most."""
    return int(max((own[phase]["tokens"] for own in spent if phase in own), default=0))
