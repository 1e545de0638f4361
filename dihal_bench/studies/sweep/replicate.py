"""Over several backbones: does the score predict better than depth, tested exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.results.table import Table, differences, numbers, words
from dihal_bench.studies.ranking.replication import LARGEST, SignFlip, sign_flip
from dihal_bench.studies.sweep.outcomes import SHORT
from dihal_bench.studies.sweep.predictors import DEPTH, SCORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dihal_bench.studies.sweep.intervention import Intervention
    from dihal_bench.studies.sweep.sweep import Sweep
    from dihal_bench.studies.sweep.table import SweepTable


@dataclass(frozen=True, kw_only=True)
class Replicated:
    """A statistic of every backbone, and whether it is above zero over all of them.

    Attributes:
        outcome: the loss it is about.
        statistic: what it is.
        values: by backbone; None where it is undefined.
        test: of those that are defined; None without two of them, and for what no claim is about.
    """

    outcome: str
    statistic: str
    values: dict[str, float | None]
    test: SignFlip | None

    @property
    def mean(self) -> float | None:
        """The mean over the backbones for which it is defined."""
        known = [value for value in self.values.values() if value is not None]
        return sum(known) / len(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        test = self.test.to_dict() if self.test else None
        return {**vars(self), "test": test}


def check_distinct(sweeps: Sequence[Sweep]) -> None:
    """Refuse one backbone under two names: it would count as two.

    Raises:
        UserError: two have the same weights.
    """
    found: dict[str, str] = {}
    for sweep in sweeps if len(sweeps) > 1 else ():  # a fingerprint reads all weights
        other = found.setdefault(sweep.job.inputs.backbone.info.fingerprint, sweep.name)
        if other != sweep.name:
            raise UserError(
                f"--backbones: {sweep.name} has the same weights as {other}, and would count as a "
                "second backbone; leave one of them out."
            )


def over_layers(tables: Mapping[str, SweepTable]) -> list[Replicated]:
    """Return tau(predictor) - tau(depth) of every predictor that ranks, over all backbones.

    Beside it stand both terms of the score's, since it is large also where depth is the wrong way
    round. A backbone with too few candidates has no values.
    """
    first = next((table for table in tables.values() if table.ranking), None)
    if first is None:
        return []
    found = []
    for outcome, some in first.ranking.items():
        for name in some:
            if not first.predictions[name].orders:
                continue
            own = {
                backbone: table.ranking[outcome][name] if table.ranking else None
                for backbone, table in tables.items()
            }
            tested = name == SCORE
            if name in (SCORE, DEPTH):
                taus = {b: one.kendall.value if one else None for b, one in own.items()}
                found.append(_replicated(outcome, f"τ({name})", taus, tested=tested))
            if name != DEPTH:
                gains = {b: one.advantage.value if one else None for b, one in own.items()}
                statistic = f"τ({name}) - τ({DEPTH})"
                found.append(_replicated(outcome, statistic, gains, tested=tested))
    return found


def within_layers(interventions: Mapping[str, Intervention]) -> list[Replicated]:
    """Return the pooled tau within a layer over all backbones, in both views."""
    first = next(iter(interventions.values()))
    return [
        _replicated(
            outcome,
            f"τ within a layer, {view} score",
            {backbone: own.tau[view][outcome].value for backbone, own in interventions.items()},
            tested=view == "diffused",
        )
        for view, some in first.tau.items()
        for outcome in some
    ]


def _replicated(
    outcome: str, statistic: str, values: dict[str, float | None], *, tested: bool
) -> Replicated:
    known = [value for value in values.values() if value is not None]
    test = sign_flip(known) if tested and 2 <= len(known) <= LARGEST else None
    return Replicated(outcome=outcome, statistic=statistic, values=values, test=test)


def replication_table(rows: Sequence[Replicated]) -> Table:
    """Return a row per statistic, a column per backbone, and the test over all of them."""
    backbones = dict.fromkeys(name for row in rows for name in row.values)
    return Table.of(
        rows,
        (words("loss"), lambda row: SHORT[row.outcome]),
        (words("statistic"), lambda row: row.statistic),
        *(
            (differences(f"of {name}", name), lambda row, name=name: row.values.get(name))
            for name in backbones
        ),
        (differences("mean"), lambda row: row.mean),
        (numbers("p", digits=3), lambda row: row.test.p if row.test else None),
        (numbers("least", digits=3), lambda row: row.test.least if row.test else None),
    )
