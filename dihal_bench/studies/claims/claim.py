"""What a claim is judged by, and the rules of judgement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dihal_bench.results.fields import LEAST_SEEDS
from dihal_bench.results.table import UNDEFINED
from dihal_bench.studies.claims.evidence import LAYERS, TRANSFORM, spent
from dihal_bench.studies.ranking.agreement import Interval
from dihal_bench.studies.ranking.replication import LARGEST, sign_flip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statistic that bears on a claim.

    Attributes:
        scope: backbones, and what was replaced.
        statistic: what was computed.
        value: of it, with its interval or p-value, as text.
        rival: what it has to beat.
        verdict: "holds", "fails" or "undecided".
        leads: whether the claim's verdict is this one.
    """

    scope: str
    statistic: str
    value: str
    rival: str
    verdict: str
    leads: bool = False


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement and what was found of it.

    Attributes:
        key: "C1" and so on.
        statement: in one sentence.
        commands: that make the results.
        findings: statistics.
        remarks: what a reader has to know besides.
        every: whether all findings that lead have to hold, rather than agree.
    """

    key: str
    statement: str
    commands: tuple[str, ...]
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...] = field(default=())
    every: bool = False

    @property
    def verdict(self) -> str:
        """Return the verdict of the findings that lead: of all together, or if they agree."""
        leading = {finding.verdict for finding in self.findings if finding.leads}
        if self.every:
            return all_of(*leading)
        return leading.pop() if len(leading) == 1 else UNDECIDED


def by_interval(interval: Mapping[str, Any]) -> str:
    """Judge whether a statistic is above zero by its 95 % interval.

    It fails where even the upper end is not above zero.
    """
    lo, hi = interval["lo"], interval["hi"]
    if interval["value"] is None or lo is None or hi is None:
        return UNDECIDED
    return HOLDS if lo > 0 else FAILS if hi <= 0 else UNDECIDED


def all_of(*verdicts: str) -> str:
    """Judge a statement with several parts: it holds where all do, and fails where one does."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if set(verdicts) == {HOLDS} else UNDECIDED


def of_trainings(verdict: str, seeds: int) -> str:
    """Withhold a verdict that rests on resampled trainings where there are too few of them."""
    return verdict if seeds >= LEAST_SEEDS else UNDECIDED


def by_replication(values: Sequence[float], p: float, p_below: float) -> str:
    """Judge whether a statistic is above zero over backbones, by the exact sign-flip test.

    Args:
        values: one per backbone.
        p: that so large a mean is chance.
        p_below: that so small a mean is.
    """
    if p <= _LEVEL:
        return HOLDS
    nowhere = all(value <= 0 for value in values)
    return FAILS if p_below <= _LEVEL or nowhere else UNDECIDED


def by_share(share: float) -> str:
    """Judge a statement by the share of resamples in which it is true."""
    return HOLDS if share >= 1 - _LEVEL / 2 else FAILS if share <= _LEVEL / 2 else UNDECIDED


def shown(interval: Mapping[str, Any], form: str = "+.2f") -> str:
    """Return a statistic with its interval as text."""
    cell = Interval(value=interval["value"], lo=interval["lo"], hi=interval["hi"]).cell
    return UNDEFINED if cell is None else cell.text(lambda value: f"{value:{form}}")


ONE_BACKBONE = (
    "An interval of one backbone is over its trainings: its layers are taken as they are, and two "
    "unrelated curves over few layers can agree. Several backbones lead; they are those of one "
    "budget."
)


def of_sweep(own: Mapping[str, Any]) -> str:
    """Return what a sweep was of, and what each of its runs spent."""
    seeds = len(own["seeds"])
    trained = f"{_spent(own)}, {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{own['backbone']}, {blocks(own['axis'])}; {trained}"


def of_several(count: int, alike: Sequence[Mapping[str, Any]]) -> str:
    """Return the same of so many backbones' sweeps, which have axis and budget in common."""
    return f"{count} backbones, {blocks(alike[0]['axis'])}; {_spent(alike[0])}"


def blocks(axis: str) -> str:
    """Return what is replaced along an axis."""
    if axis == LAYERS:
        return "blocks (0, l] replaced"
    if axis == TRANSFORM:
        return "within layers"
    return f"blocks (l - {axis.removeprefix('span-')}, l] replaced"


def _spent(own: Mapping[str, Any]) -> str:
    diffusion, recovery = spent(own)
    return f"{diffusion:,} diffusion and {recovery:,} recovery tokens"


def over(
    values: Mapping[str, float | None],
    alike: Sequence[Mapping[str, Any]],
    statistic: str,
    *,
    rival: str,
    leads: bool,
) -> list[Finding]:
    """Return what a statistic is over several backbones; nothing if it is defined for one only.

    Args:
        values: by backbone.
        alike: the sweeps that they are of.
        statistic: what was computed.
        rival: what it has to beat.
        leads: whether the claim's verdict is this one.
    """
    known = [value for value in values.values() if value is not None]
    if len(known) < 2:
        return []
    text, verdict = replicated(known)
    return [
        Finding(
            scope=of_several(len(known), alike),
            statistic=f"{statistic}, mean over backbones",
            value=text,
            rival=rival,
            verdict=verdict,
            leads=leads,
        )
    ]


def replicated(values: Sequence[float]) -> tuple[str, str]:
    """Return the mean over backbones with its p-value as text, and whether it is above zero."""
    if len(values) > LARGEST:
        return f"{sum(values) / len(values):+.2f} (more than {LARGEST}: no exact test)", UNDECIDED
    test, below = sign_flip(values), sign_flip([-value for value in values])
    text = f"{test.mean:+.2f} (p = {test.p:.3f}, at least {test.least:.3f})"
    return text, by_replication(values, test.p, below.p)
