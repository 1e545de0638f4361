"""The table of a block: scores over all seeds, paired with the reference, and what they cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dihal_bench.evaluation.likelihood import SAMPLED, TEACHER
from dihal_bench.results.constants import CONVERGED, LEAST_SEEDS
from dihal_bench.results.metrics import BLOCK_BOUND, BRIER1, DIFFUSION_GAIN, METRICS, Shown
from dihal_bench.studies.comparison.paired import columns
from dihal_bench.studies.comparison.plan import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dihal_bench.evaluation.intervals import Estimate
    from dihal_bench.results.metrics import Metric
    from dihal_bench.studies.comparison.paired import Paired
    from dihal_bench.studies.comparison.pool import Key


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a comparison's table; None where a number has no meaning.

    Attributes:
        block: of the table.
        row: the interface or control; and the interface whose run it is from, if it is one of
            several.
        interface: label of the interface whose run it is from.
        role: "teacher", "interface", "control", or "trial": the interface without its signal.
        seeds: trainings behind it.
        steps: network evaluations per chain.
        chains: chains in the ensemble.
        nfe: evaluations in all, a decoder's included.
        kind: "exact" or "ensemble".
        n: scored tokens.
        estimates: of the metrics of a comparison that the row has, by the keys of their columns.
        versus: NLL minus the reference's at the same steps and chains.
        other_task: whether it replaces another number of blocks than the reference it is compared
            with.
        converged: whether doubling the chains still changes NLL by 0.02 or more.
        brier1_versus: Brier-1's difference to the reference's.
        gain_over: the control whose NLL the gain is over.
        gain_fewer: whether that control was trained on fewer tokens.
        bound: variational bound of the block, nats per token.
        rank: by Brier-1 among interfaces that replace as many blocks, at equal steps: 1 + how many
            are surely better.
        ranked: how many of them have a rank; 0: it has none itself.
        ties: those that are neither surely better nor surely worse, and have a rank beside it.
        replaced: blocks it stands in for.
        retained: of the rest, those that are executed.
        flop_ratio: FLOPs of a chain over those of the replaced blocks; of the headline's steps.
        diffusion_tokens: spent in that phase.
        recovery_tokens: spent in that phase.
        trunk: parameters.
        recovery: parameters trained in the recovery phase, and readouts.
        flops: of training.
        seconds: of training.
        oracle: agreement of what is recovered from the true signal with the text (or the teacher).
        oracle_kl: KL(teacher || recovered) from the true signal.
        sigma_half: noise at which that agreement halves.
        course: Brier-1 at 25, 50 and 100 % of the diffusion budget, on a part of the text.
        within: whether it kept to its budget.
    """

    block: str
    row: str
    interface: str
    role: str
    seeds: int
    steps: int
    chains: int
    nfe: int
    kind: str
    n: int
    estimates: dict[str, Estimate]
    versus: Estimate | None
    other_task: bool
    converged: bool | None
    brier1_versus: Estimate | None
    gain_over: str
    gain_fewer: bool
    bound: float | None
    rank: int | None
    ranked: int
    ties: tuple[str, ...]
    replaced: int | None
    retained: int | None
    flop_ratio: float | None
    diffusion_tokens: int
    recovery_tokens: int
    trunk: int
    recovery: int
    flops: float
    seconds: float
    oracle: float | None
    oracle_kl: float | None
    sigma_half: float | None
    course: tuple[float, ...]
    within: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; an estimate becomes three columns."""
        plain: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            estimated = each.type == "Estimate | None"
            if each.name == "estimates":
                for metric in compared():
                    plain |= columns(metric.name, value.get(metric.name))
            else:
                plain |= columns(each.name, value) if estimated else {each.name: value}
        return plain


def compared() -> list[Metric]:
    """Return the metrics of a comparison that are estimates; what ranks comes first."""
    shown = [metric for metric in METRICS.shown_in(Shown.COMPARISON) if not metric.bound]
    return sorted(shown, key=lambda metric: not metric.ranked)


def lines(paired: Paired, block: str, *, reference: str | None = REFERENCE) -> list[Line]:
    """Return the rows of a block: the teacher, then interface by interface with its controls.

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
    """Makes the lines of one block."""

    def __init__(self, paired: Paired, block: str, reference: str | None):
        self.paired, self.pool, self.block = paired, paired.pool, block
        self.reference = reference

    def lines(self) -> Iterator[Line]:
        yield self._line(self.pool.teacher(), 1)
        for key in self.pool.rows:
            for chains in dict.fromkeys((1, self.paired.sizes(key)[-1])):
                yield self._line(key, chains)

    def _line(self, key: Key, chains: int) -> Line:
        pool, row = self.pool, key.row
        traits, record = pool.traits(key), pool.first(key.interface)
        records = list(pool.records[key.interface].values())
        teacher = key == pool.teacher()
        scored = teacher or self.paired.likely(key)
        whole = chains == row.chains
        spent = [r["spent"].get(row.subject, {}) for r in records]
        standing = self.standings.get(key) if whole else None
        cost = record["costs"].get(row.subject)
        half = self.paired.nll(key, chains // 2).value if scored and chains > 1 else None
        nll = self.paired.nll(key, chains) if scored else None
        reference = self._reference(key, chains)
        gain, over = self._gain(key, chains)
        estimates = dict(self._means(key, chains, teacher=teacher, likely=scored))
        estimates |= {DIFFUSION_GAIN.name: gain} if gain else {}
        return Line(
            block=self.block,
            row=self.pool.name(key),
            interface=key.interface,
            role="teacher" if teacher else pool.role(key),
            seeds=1 if teacher else len(pool.seeds(key)),
            steps=row.steps,
            chains=chains,
            nfe=0 if teacher else traits["nfe"] // traits["chains"] * chains,
            kind=traits["kind"] if traits["kind"] != "estimate" else "ensemble",
            n=self.paired.tokens,
            estimates=estimates,
            versus=self._versus(key, chains, reference) if scored else None,
            other_task=bool(
                reference and not teacher and self._replaced(reference[0]) != self._replaced(key)
            ),
            converged=half - nll.value < CONVERGED if nll and half is not None else None,
            brier1_versus=self._brier_versus(key, reference) if whole else None,
            gain_over=over,
            gain_fewer=bool(over) and self._tokens(key, over) < self._tokens(key, row.subject),
            bound=self._bound(key, chains),
            rank=standing.rank if standing else None,
            ranked=standing.ranked if standing else 0,
            ties=standing.ties if standing else (),
            replaced=None if teacher else record["interface"]["replaced"],
            retained=None
            if teacher
            else record["backbone"]["blocks"] - record["interface"]["replaced"],
            flop_ratio=cost["ratio"] if cost and cost["steps"] == row.steps else None,
            diffusion_tokens=_phase(spent, "diffusion", "tokens"),
            recovery_tokens=_phase(spent, "recovery", "tokens"),
            trunk=cost["trunk_parameters"] if cost else 0,
            recovery=cost["recovery_parameters"] + cost["other_parameters"] if cost else 0,
            flops=sum(p["flops"] for s in spent for p in s.values()) / len(spent),
            seconds=sum(p["seconds"] for s in spent for p in s.values()) / len(spent),
            **self._oracle(key),
            course=self._course(key),
            within=None if key.control else all(r["budget"]["within"] for r in records),
        )

    def _means(
        self, key: Key, chains: int, *, teacher: bool, likely: bool
    ) -> Iterator[tuple[str, Estimate]]:
        """Yield the metrics that are means over tokens; distances to the teacher not of itself."""
        for metric in compared():
            mean = metric.mean
            if mean and (likely or not mean.likelihood) and (mean.of_teacher or not teacher):
                found = self.paired.mean(key, metric, chains)
                if found is not None:
                    yield metric.name, found

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

    def _bound(self, key: Key, chains: int) -> float | None:
        if chains > 1 or not key.leads:
            return None
        values = [
            s["value"]
            for r in self.pool.records[key.interface].values()
            for s in r["scores"]
            if s["metric"] == BLOCK_BOUND.key and s["steps"] == key.row.steps
        ]
        return sum(values) / len(values) if values else None

    def _oracle(self, key: Key) -> dict[str, Any]:
        """Return means over seeds of what recovery makes of the true signal; of interfaces only."""
        names = {"oracle": "agreement", "oracle_kl": "kl", "sigma_half": "sigma_half"}
        if key.control:
            return dict.fromkeys(names)
        found = [r["bridge"]["oracle"] for r in self.pool.records[key.interface].values()]
        return {
            name: None if any(o[own] is None for o in found) else _mean(o[own] for o in found)
            for name, own in names.items()
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
