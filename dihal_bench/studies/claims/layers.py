"""What sweeps say: of the score and depth (C1), of the best layer (C2), of losses (Q2, Q3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.studies.claims.claim import (
    ONE_BACKBONE,
    Claim,
    Finding,
    all_of,
    by_interval,
    by_share,
    of_several,
    of_sweep,
    of_trainings,
    over,
    replicated,
    shown,
)
from dihal_bench.studies.claims.evidence import LAYERS, TRANSFORM
from dihal_bench.studies.ranking.agreement import LEAST, Interval, interval, kendall
from dihal_bench.studies.sweep.outcomes import DOWNSTREAM, SHORT
from dihal_bench.studies.sweep.predictors import DEPTH, SCORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dihal_bench.studies.claims.evidence import Evidence

_RESAMPLES = 2000
_SWEEP = "dihal-bench sweep"
_PARTS = "{}: ranks, τ(score); beats depth, τ(score) - τ(depth)"
_WITHIN = "{}: τ of score and minus the loss over changes of coordinates"
_NULL = "rotation (the null)"


def predicts(evidence: Evidence) -> Claim:
    """C1: the score predicts at which layer a bridge comes out best."""
    findings = []
    for axis, alike in evidence.kinds():
        for own in alike:
            findings += [_of_backbone(own, loss) for loss in own["ranking"]]
        findings += _over_backbones(alike, leads=axis != LAYERS)
    return Claim(
        key="C1",
        statement="The geometry score tells at which layer a bridge comes out best.",
        commands=(_SWEEP, f"{_SWEEP} --span 2", f"{_SWEEP} --span 2 --backbones zoo"),
        findings=tuple(findings),
        remarks=(
            "The rival is depth: naming the earliest layer. Where layers replace everything below "
            "them, the loss grows with every block that is replaced, so any score that falls with "
            "depth ranks them; with the same number of blocks replaced everywhere it has to show "
            "more. That case leads.",
            "Two parts, each with its verdict beside its value: the score has to rank the layers, "
            "and better than depth does. A row fails where one of them does, even if the other "
            "holds. Where the loss falls with depth, the earliest layer is the worst guess, and a "
            "score that knows nothing beats it. Backbones, not layers, are the unit of "
            "replication; those of one budget are taken together.",
        ),
    )


def _of_backbone(sweep: Mapping[str, Any], loss: str) -> Finding:
    some, seeds = sweep["ranking"][loss], len(sweep["seeds"])
    parts = [
        (shown(own), of_trainings(by_interval(own), seeds))
        for own in (some[SCORE]["kendall"], some[SCORE]["advantage"])
    ]
    return Finding(
        scope=of_sweep(sweep),
        statistic=_PARTS.format(_short(loss)),
        value=_in_parts(parts),
        rival=f"depth {shown(some[DEPTH]['kendall'])}, ridge {shown(some['ridge FVU']['kendall'])}",
        verdict=all_of(*(verdict for _, verdict in parts)),
    )


def _over_backbones(alike: Sequence[Mapping[str, Any]], *, leads: bool) -> list[Finding]:
    """Return both parts over the backbones of which both are defined, a row per loss."""
    findings = []
    for loss in dict.fromkeys(loss for own in alike for loss in own["ranking"]):
        scores = [own["ranking"][loss][SCORE] for own in alike if loss in own["ranking"]]
        both = [(own["kendall"]["value"], own["advantage"]["value"]) for own in scores]
        known = [pair for pair in both if None not in pair]
        if len(known) < 2:
            continue
        parts = [replicated(values) for values in zip(*known, strict=True)]
        findings.append(
            Finding(
                scope=of_several(len(known), alike),
                statistic=f"{_PARTS.format(_short(loss))}; means over backbones",
                value=_in_parts(parts),
                rival="depth",
                verdict=all_of(*(verdict for _, verdict in parts)),
                leads=leads,
            )
        )
    return findings


def _in_parts(parts: Sequence[tuple[str, str]]) -> str:
    """Return values, each with its verdict."""
    return "; ".join(f"{text} {verdict}" for text, verdict in parts)


def shallow(evidence: Evidence) -> Claim:
    """C2: the best layer is shallow."""
    findings = []
    for axis, alike in evidence.kinds():
        for own in alike:
            for loss, values in own["losses"].items():
                findings.append(_best(own, loss, np.array(values), leads=axis != LAYERS))
    return Claim(
        key="C2",
        statement="The best layer is a shallow one (among the lowest quarter of the blocks).",
        commands=(_SWEEP, f"{_SWEEP} --span 2"),
        findings=tuple(findings),
        remarks=(
            "Where everything below the layer is replaced, the lowest layer has least to do: that "
            "it is best says nothing of its geometry. The case of equal replaced blocks leads.",
        ),
    )


def _best(
    sweep: Mapping[str, Any], loss: str, losses: np.ndarray[Any, Any], *, leads: bool
) -> Finding:
    """Judge how often the layer of the least mean loss is in the lowest quarter.

    It says nothing unless both shallow and all deeper layers were tried, so that the best could be
    either.
    """
    layers, total = sweep["layers"], sweep["blocks"]
    lowest = max(1, total // 4)
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(losses), size=(_RESAMPLES, len(losses)))
    share = float((np.array(layers)[losses[drawn].mean(1).argmin(1)] <= lowest).mean())
    choice = layers[0] <= lowest and set(range(lowest + 1, total)) <= set(layers)
    best = layers[int(losses.mean(0).argmin())]
    return Finding(
        scope=of_sweep(sweep),
        statistic=f"{_short(loss)}: best layer, and how often it is in the lowest quarter over "
        "trainings drawn anew",
        value=f"{best} of {total}; " + (f"{share:.0%}" if choice else "undefined"),
        rival="early, middle, late",
        verdict=of_trainings(by_share(share), len(losses) if choice else 0),
        leads=leads,
    )


def carries_over(evidence: Evidence) -> Claim:
    """Q2: does bridge loss predict what comes out downstream?"""
    findings = []
    for axis, alike in evidence.kinds():
        for loss in DOWNSTREAM:
            statistic, taus = f"τ(bridge loss, {SHORT[loss]}) over layers", {}
            for own in alike:
                if loss not in own["losses"]:
                    continue
                fvu = np.array(own["losses"]["fvu_mmse"])
                found = vars(_tau_of_losses(fvu, np.array(own["losses"][loss])))
                taus[own["backbone"]] = found["value"]
                findings.append(
                    Finding(
                        scope=of_sweep(own),
                        statistic=statistic,
                        value=shown(found),
                        rival="-",
                        verdict=of_trainings(by_interval(found), len(fvu)),
                    )
                )
            findings += over(taus, alike, statistic, rival="-", leads=axis != LAYERS)
    return Claim(
        key="Q2",
        statement="Bridge loss (FVU) ranks layers as what comes out of the model does.",
        commands=(_SWEEP, f"{_SWEEP} --span 2", f"{_SWEEP} --span 2 --backbones zoo"),
        findings=tuple(findings),
        remarks=(ONE_BACKBONE,),
    )


def _tau_of_losses(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> Interval:
    """Return Kendall's tau of two losses over layers, with its interval over trainings.

    Of fewer than three layers it is undefined: that of two is always 1 or -1.
    """
    if one.shape[1] < LEAST:
        return Interval(value=None, lo=None, hi=None)
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(one), size=(_RESAMPLES, len(one)))
    all_trainings = kendall(one.mean(0), other.mean(0))
    return interval(np.append(all_trainings, kendall(one[drawn].mean(1), other[drawn].mean(1))))


def causes(evidence: Evidence) -> Claim:
    """Q3: does the loss follow the geometry where nothing else moves?"""
    findings = []
    for alike in evidence.along(TRANSFORM):
        taus: dict[str, dict[str, float | None]] = {}
        for own in alike:
            for loss, found in own["intervention"]["tau"]["diffused"].items():
                taus.setdefault(loss, {})[own["backbone"]] = found["value"]
                findings.append(
                    Finding(
                        scope=of_sweep(own),
                        statistic=_WITHIN.format(_short(loss)),
                        value=shown(found),
                        rival=_NULL,
                        verdict=of_trainings(by_interval(found), len(own["seeds"])),
                    )
                )
        for loss, some in taus.items():
            statistic = _WITHIN.format(_short(loss))
            findings += over(some, alike, statistic, rival=_NULL, leads=True)
    return Claim(
        key="Q3",
        statement="Where only the geometry moves, the loss follows the score.",
        commands=(f"{_SWEEP} --transform rotate,scale,spectrum:0,0.5,1 --layers 2,4,6",),
        findings=tuple(findings),
        remarks=(
            ONE_BACKBONE,
            "Changes of coordinates are undone before the upper blocks: information, network and "
            "depth stay. The squared error that training minimises follows the coordinates too.",
        ),
    )


def _short(loss: str) -> str:
    """Return a loss's name for people; what this version does not know keeps its own."""
    return SHORT.get(loss, loss)
