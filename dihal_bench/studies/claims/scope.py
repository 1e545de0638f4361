"""What a finding is of, in words, and one statistic over several backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.studies.claims.claim import UNDECIDED, Finding, by_replication
from dihal_bench.studies.claims.evidence import LAYERS, TRANSFORM, spent
from dihal_bench.studies.ranking.replication import LARGEST, sign_flip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
