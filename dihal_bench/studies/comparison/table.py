"""The rows of a block: scores over all seeds, paired with the reference, and what they cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dihal_bench.core.markdown import counted
from dihal_bench.evaluation.likelihood import SAMPLED, TEACHER
from dihal_bench.results.fields import CONVERGED, LEAST_SEEDS
from dihal_bench.results.metrics import BLOCK_BOUND, BRIER1, DIFFUSION_GAIN, NLL, Shown
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
    from dihal_bench.results.table import Estimate, Value
    from dihal_bench.studies.comparison.paired import Paired
    from dihal_bench.studies.comparison.pool import Key

_TABLES = (Shown.LEADERBOARD, Shown.COMPARISON)


def lines(paired: Paired, block: str, *, reference: str | None = REFERENCE) -> list[TableRow]:
    """Return the rows of a block: the teacher, then interface by interface with its controls.

    Cells are those of ``columns.compared_columns``; None where a number has no
    meaning.

    Args:
        paired: differences of its rows.
        block: its name.
        reference: the interface that all rows are held against; None: no one.
    """
    return list(_Builder(paired, block, reference).lines())


@dataclass(frozen=True)
class _Standing:
    rank: int
    ranked: int
    ties: tuple[str, ...]


class _Builder:
    """Makes the rows of one block."""

    def __init__(self, paired: Paired, block: str, reference: str | None):
        self.paired, self.pool, self.block = paired, paired.pool, block
        self.reference = reference

    def lines(self) -> Iterator[TableRow]:
        yield self._line(self.pool.teacher(), 1)
        for key in self.pool.rows:
            for chains in dict.fromkeys((1, self.paired.sizes(key)[-1])):
                yield self._line(key, chains)

    def _line(self, key: Key, chains: int) -> TableRow:
        teacher, exact = key == self.pool.teacher(), self.pool.traits(key)["kind"] == "exact"
        standing = self.standings.get(key) if chains == key.row.chains else None
        gain, over = self._gain(key, chains)
        fewer = bool(over) and self._tokens(key, over) < self._tokens(key, key.row.subject)
        cells: dict[str, Value] = {
            **self._costs(key, chains, teacher=teacher),
            **self._scores(key, chains, TableCell.of(gain, FEWER if fewer else "")),
            "row": self.pool.name(key),
            "interface": key.interface,
            "role": "teacher" if teacher else self.pool.role(key),
            "rank": self._rank(key, standing),
            "gain_over": over or None,
            "kind": "exact" if exact else f"ensemble({chains})",
            "bound": self._bound(key, chains),
            **self._against(key, chains, standing, teacher=teacher),
        }
        ties = standing.ties if standing else ()
        return TableRow(cells=cells, ties=ties, owners=self.pool.owners(key))

    def _costs(self, key: Key, chains: int, *, teacher: bool) -> dict[str, Value]:
        """Return what a row replaces, in how many evaluations, and what was spent on it."""
        pool, row = self.pool, key.row
        traits, record = pool.traits(key), pool.first(key.interface)
        records = pool.records[key.interface].values()
        spent = [r["spent"].get(row.subject, {}) for r in records]
        cost, replaced = record["costs"].get(row.subject), record["interface"]["replaced"]
        ratio = cost["ratio"] if cost and cost["steps"] == row.steps else None
        recovery = cost["recovery_parameters"] + cost["other_parameters"] if cost else 0
        oracle = self._oracle(key)
        return {
            "replaced": None if teacher else replaced,
            "retained": None if teacher else record["backbone"]["blocks"] - replaced,
            "flop_ratio": ratio,
            "steps": row.steps,
            "chains": chains,
            "nfe": 0 if teacher else traits["nfe"] // traits["chains"] * chains,
            "seeds": 1 if teacher else len(pool.seeds(key)),
            "n": self.paired.tokens,
            "diffusion_tokens": _phase(spent, "diffusion", "tokens"),
            "recovery_tokens": _phase(spent, "recovery", "tokens"),
            "trunk": cost["trunk_parameters"] if cost else 0,
            "recovery": recovery,
            "flops": sum(p["flops"] for s in spent for p in s.values()) / len(spent),
            "seconds": sum(p["seconds"] for s in spent for p in s.values()) / len(spent),
            "oracle": oracle["agreement"],
            "sigma_half": oracle["sigma_half"],
            "oracle_kl": oracle["kl"],
        }

    def _scores(self, key: Key, chains: int, gain: TableCell | None) -> dict[str, Value]:
        """Return every metric that is a mean over tokens, and the diffusion gain."""
        shown = dict.fromkeys(m for table in _TABLES for m in ranked_first(table) if not m.bound)
        return {
            metric.name: gain if metric is DIFFUSION_GAIN else self._mean_cell(metric, key, chains)
            for metric in sorted(shown, key=lambda metric: not metric.brief)
        }

    def _mean_cell(self, metric: Metric, key: Key, chains: int) -> TableCell | None:
        """Return a mean over tokens; a distance to the teacher is not the teacher's own."""
        teacher, mean = key == self.pool.teacher(), metric.mean
        able = mean and (teacher or self.paired.likely(key) or not mean.likelihood)
        if not (mean and able) or (teacher and not mean.of_teacher):
            return None
        tied = metric.ranked and key in self.standings and bool(self.standings[key].ties)
        unsure = metric is NLL and self._unconverged(key, chains)
        flags = (TIED if tied else "", UNCONVERGED if unsure else "")
        return TableCell.of(self.paired.mean(key, metric, chains), *flags)

    def _unconverged(self, key: Key, chains: int) -> bool:
        """Whether doubling the chains still moves the NLL."""
        if chains == 1:
            return False
        half, nll = (self.paired.nll(key, size).value for size in (chains // 2, chains))
        return half - nll >= CONVERGED

    def _rank(self, key: Key, standing: _Standing | None) -> TableCell | None:
        """Return a rank with what it is among: those that it was held against."""
        if standing is None:
            return None
        blocks = counted(self._replaced(key), "block")
        among = f"of {standing.ranked}: S={key.row.steps}, {blocks}"
        return TableCell(standing.rank, among=among)

    def _against(
        self, key: Key, chains: int, standing: _Standing | None, *, teacher: bool
    ) -> dict[str, Value]:
        """Return what stands in comparisons alone: differences to the reference, the course."""
        scored = teacher or self.paired.likely(key)
        reference = self._reference(key, chains)
        other = reference and not teacher and self._replaced(reference[0]) != self._replaced(key)
        flag = OTHER_TASK if other else ""
        nll = self._versus(key, chains, reference) if scored else None
        brier = self._brier_versus(key, reference) if chains == key.row.chains else None
        records = self.pool.records[key.interface].values()
        within = key.control or all(r["budget"]["within"] for r in records)
        return {
            "block": self.block,
            "versus": TableCell.of(nll, flag),
            "brier1_versus": TableCell.of(brier, flag),
            "course": "/".join(f"{value:.3f}" for value in self._course(key)) or None,
            "budget": None if within else "outside",
            "ties": "; ".join(standing.ties) if standing and standing.ties else None,
        }

    def _reference(self, key: Key, chains: int) -> tuple[Key, int] | None:
        """Return the reference's row at the same steps and chains, else its headline, one chain."""
        own = [
            k
            for k in self._references
            if k.interface.partition(" ")[2] == key.interface.partition(" ")[2]  # the denoiser
        ]
        if not own:
            return None
        same = [k for k in own if k.row.steps == key.row.steps and chains in self.paired.sizes(k)]
        stochastic = self.pool.traits(key)["kind"] != "exact"
        return (same[0], chains) if same and stochastic else (own[-1], 1)

    def _versus(self, key: Key, chains: int, reference: tuple[Key, int] | None) -> Estimate | None:
        if reference is None or reference == (key, chains):
            return None
        other, size = reference
        return self.paired.nll_difference((key, chains), (other, size))

    def _brier_versus(self, key: Key, reference: tuple[Key, int] | None) -> Estimate | None:
        if reference is None or reference[0] == key:
            return None
        return self.paired.brier_difference(key, reference[0])

    def _gain(self, key: Key, chains: int) -> tuple[Estimate | None, str]:
        if key.control or key.row.signal != SAMPLED or not self.paired.likely(key):
            return None, ""
        spent = self.pool.traits(key)["nfe"] // self.pool.traits(key)["chains"] * chains
        able = [
            k
            for k in self._controls.get(key.interface, ())
            if self.paired.likely(k)
            and self.pool.traits(k)["nfe"] <= spent
            and set(self.pool.seeds(key)) <= set(self.pool.seeds(k))
        ]
        if not able:
            return None, ""
        best = min(able, key=lambda k: self.paired.nll(k, 1).value)
        return self.paired.nll_difference((best, 1), (key, chains)), best.row.subject

    def _tokens(self, key: Key, subject: str) -> int:
        """Return the tokens that a subject of a row's run was trained on, in all phases."""
        spent = self.pool.first(key.interface)["spent"].get(subject, {})
        return int(sum(phase["tokens"] for phase in spent.values()))

    def _bound(self, key: Key, chains: int) -> TableCell | None:
        if chains > 1 or not key.leads:
            return None
        values = [
            s["value"]
            for r in self.pool.records[key.interface].values()
            for s in r["scores"]
            if s["metric"] == BLOCK_BOUND.key and s["steps"] == key.row.steps
        ]
        return TableCell(_mean(values)) if values else None

    def _oracle(self, key: Key) -> dict[str, float | None]:
        """Return means over seeds of what recovery makes of the true signal; of interfaces only."""
        names = ("agreement", "kl", "sigma_half")
        if key.control:
            return dict.fromkeys(names)
        found = [r["bridge"]["oracle"] for r in self.pool.records[key.interface].values()]
        return {
            name: None if any(o[name] is None for o in found) else _mean(o[name] for o in found)
            for name in names
        }

    def _course(self, key: Key) -> tuple[float, ...]:
        """Return mean Brier-1 over seeds, share by share."""
        points: dict[float, list[float]] = {}
        for record in self.pool.records[key.interface].values():
            for point in record["bridge"]["progress"]:
                if (point["subject"], point["steps"]) == (key.row.subject, key.row.steps):
                    points.setdefault(point["share"], []).append(point[BRIER1.key])
        return tuple(_mean(points[share]) for share in sorted(points))

    @cached_property
    def _references(self) -> list[Key]:
        """The reference's own rows."""
        return [k for k in self.pool.rows if k.leads and k.row.subject == self.reference]

    @cached_property
    def _controls(self) -> dict[str, list[Key]]:
        """The rows of controls, by the interface beside which they stand."""
        found: dict[str, list[Key]] = defaultdict(list)
        for key in self.pool.totals:
            if key.control and key.row.subject != TEACHER:
                found[key.interface].append(key)
        return found

    @cached_property
    def standings(self) -> dict[Key, _Standing]:
        """The ranks of interfaces, among those at equal steps that replace as many blocks."""
        peers: dict[tuple[int, int], list[Key]] = defaultdict(list)
        for key in self.pool.rows:
            if key.leads and len(self.pool.seeds(key)) >= LEAST_SEEDS:
                peers[key.row.steps, self._replaced(key)].append(key)
        found = {}
        for keys in peers.values():
            better = self.paired.better(keys)
            for key in keys:
                ties = [k for k in keys if k not in better[key] and key not in better[k]]
                names = tuple(self.pool.name(k) for k in ties if k != key)
                found[key] = _Standing(1 + len(better[key]), len(keys), names)
        return found

    def _replaced(self, key: Key) -> int:
        """Return how many blocks a row stands in for: fewer is another, easier task."""
        return int(self.pool.first(key.interface)["interface"]["replaced"])


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)


def _phase(spent: list[dict[str, Any]], phase: str, what: str) -> int:
    return int(max((s[phase][what] for s in spent if phase in s), default=0))
