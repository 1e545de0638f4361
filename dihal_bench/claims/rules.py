"""The claims, and how each is judged from the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.claims.claim import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Claim,
    Finding,
    all_of,
    by_interval,
    by_replication,
    by_share,
    of_trainings,
    shown,
)
from dihal_bench.claims.evidence import LAYERS, TRANSFORM
from dihal_bench.ranking.agreement import kendall
from dihal_bench.ranking.replication import sign_flip
from dihal_bench.sweep.outcomes import DOWNSTREAM, SHORT
from dihal_bench.sweep.predictors import DEPTH, SCORE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.claims.evidence import Evidence

_RESAMPLES = 2000
_SWEEP = "dihal-bench sweep"
_STABLE, _UNSTABLE = 0.95, 0.5
_WITHIN = "{}: τ of score and minus the loss over changes of coordinates"
_NULL = "rotation (the null)"
_ONE_BACKBONE = (
    "An interval of one backbone is over its trainings: its layers are taken as they are, and two "
    "unrelated curves over few layers can agree. Several backbones lead."
)


def predicts(evidence: Evidence) -> Claim:
    """C1: the score predicts at which layer a bridge comes out best."""
    findings = []
    for axis in (*evidence.spans, LAYERS):
        for own in evidence.backbones(axis).values():
            for loss, some in own["ranking"].items():
                findings.append(_of_backbone(own, axis, loss, some))
        findings += _over_backbones(evidence, axis)
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
            "Backbones, not layers, are the unit of replication. The score has to rank the layers, "
            "and better than depth does: where the loss falls with depth, the earliest layer is "
            "the worst guess, and a score that knows nothing beats it.",
        ),
    )


def _of_backbone(
    sweep: Mapping[str, Any], axis: str, loss: str, some: Mapping[str, Any]
) -> Finding:
    own = some[SCORE]
    verdict = all_of(by_interval(own["kendall"]), by_interval(own["advantage"]))
    return Finding(
        scope=_scope(sweep, axis),
        statistic=f"{SHORT[loss]}: τ(score) {shown(own['kendall'])}; minus τ(depth)",
        value=shown(own["advantage"]),
        rival=f"depth {shown(some[DEPTH]['kendall'])}, ridge {shown(some['ridge FVU']['kendall'])}",
        verdict=of_trainings(verdict, len(sweep["seeds"])),
    )


def _over_backbones(evidence: Evidence, axis: str) -> list[Finding]:
    findings = []
    sweeps = evidence.backbones(axis)
    for row in evidence.replications.get(axis, []):
        if row["test"] is None or row["statistic"] != f"τ({SCORE}) - τ({DEPTH})":
            continue
        loss, advantages = row["outcome"], row["values"]
        taus = {
            name: sweeps[name]["ranking"][loss][SCORE]["kendall"]["value"]
            for name in advantages
            if name in sweeps
        }
        complete = len(taus) == len(advantages)
        parts = [_replicated(advantages), *([_replicated(taus)] if complete else [])]
        findings.append(
            Finding(
                scope=f"{len(advantages)} backbones, {_blocks(axis)}",
                statistic=f"{SHORT[loss]}: τ(score) - τ(depth), mean over backbones; τ(score)",
                value="; ".join(text for text, _ in parts),
                rival="depth",
                verdict=all_of(*(own for _, own in parts)) if complete else UNDECIDED,
                leads=axis != LAYERS,
            )
        )
    return findings


def _replicated(values: Mapping[str, float | None]) -> tuple[str, str]:
    """Return the mean over backbones with its p-value as text, and whether it is above zero."""
    known = [value for value in values.values() if value is not None]
    if len(known) < 2:
        return "undefined", UNDECIDED
    test, below = sign_flip(known), sign_flip([-value for value in known])
    text = f"{test.mean:+.2f} (p = {test.p:.3f}, at least {test.least:.3f})"
    return text, by_replication(values, test.p, below.p)


def shallow(evidence: Evidence) -> Claim:
    """C2: the best layer is shallow."""
    findings = []
    for axis in (*evidence.spans, LAYERS):
        for own in evidence.backbones(axis).values():
            blocks = own["blocks"]
            for loss, values in own["losses"].items():
                lowest = max(1, blocks // 4)
                best, share = _best(own["layers"], np.array(values), lowest)
                seeds = len(values) if _choice(own["layers"], lowest, blocks) else 0
                findings.append(
                    Finding(
                        scope=_scope(own, axis),
                        statistic=f"{SHORT[loss]}: best layer, and how often it is in the lowest "
                        "quarter over trainings drawn anew",
                        value=f"{best} of {blocks}; {share:.0%}",
                        rival="early, middle, late",
                        verdict=of_trainings(by_share(share), seeds),
                        leads=axis != LAYERS,
                    )
                )
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


def _choice(layers: list[int], lowest: int, blocks: int) -> bool:
    """Whether both shallow and all deeper layers were tried, so that the best could be either."""
    return layers[0] <= lowest and set(range(lowest + 1, blocks)) <= set(layers)


def _best(layers: list[int], losses: np.ndarray[Any, Any], highest: int) -> tuple[int, float]:
    """Return the layer of the least mean loss, and how often it is at most ``highest``."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(losses), size=(_RESAMPLES, len(losses)))
    best = losses[drawn].mean(1).argmin(1)
    share = float((np.array(layers)[best] <= highest).mean())
    return layers[int(losses.mean(0).argmin())], share


def generates(evidence: Evidence) -> Claim:
    """C3: hidden generates better and more varied text than the other interfaces."""
    from dihal_bench.claims.generation import generation_findings

    findings = generation_findings(evidence.records)
    return Claim(
        key="C3",
        statement="At a matched budget, hidden beats embedding, latent and c2d in generative "
        "perplexity and in diversity.",
        commands=("dihal-bench compare --seeds 0,1,2", "dihal-bench score RUN --tasks samples"),
        findings=tuple(findings),
        remarks=(
            "Generative perplexity is by a judge that is not the backbone; what fools it is in the "
            "audit. From scratch hidden keeps all blocks above a low layer and the others keep "
            "none; the rows of equal replaced blocks lead.",
        ),
    )


def stable(evidence: Evidence) -> Claim:
    """C4: the ranking is stable under subsampling."""
    findings = []
    for name, own in evidence.backbones(LAYERS).items():
        scores, draws = np.array(own["predictions"][SCORE]), np.array(own["draws"][SCORE])
        share = float((draws.argmax(1) == scores.argmax()).mean())
        taus = kendall(draws, np.broadcast_to(scores, draws.shape))
        findings.append(
            Finding(
                scope=f"{name}, {len(draws)} large subsamples",
                statistic="share that selects the same layer; τ with the score of all, least",
                value=f"{share:.0%}; {np.nanmin(taus):+.2f}",
                rival="-",
                verdict=_stability(share),
                leads=True,
            )
        )
    for name, grid in evidence.grids.items():
        cell = _paper_cell(grid)
        count = grid["sample"]["stability_resamples"]
        findings.append(
            Finding(
                scope=f"{name}, {count} small subsamples",
                statistic="share that selects the same layer; spread of ranks",
                value=f"{cell['small_share']:.0%}; {cell['small_rank_spread']:.2f}",
                rival="-",
                verdict=_stability(cell["small_share"]),
                leads=True,
            )
        )
    return Claim(
        key="C4",
        statement="The ranking of layers is stable under subsampling of activations.",
        commands=(_SWEEP, "dihal-bench locate --grid"),
        findings=tuple(findings),
        remarks=(
            f"Holds: at least {_STABLE:.0%} of the subsamples select the same layer; fails: fewer "
            f"than {_UNSTABLE:.0%}. Stability is no merit of its own: depth is perfectly stable.",
        ),
    )


def _stability(share: float) -> str:
    return HOLDS if share >= _STABLE else FAILS if share < _UNSTABLE else UNDECIDED


def robust(evidence: Evidence) -> Claim:
    """Q1: does the selection depend on k, on the ridge, on the other definitions?"""
    findings = []
    for name, grid in evidence.grids.items():
        paper = _paper_cell(grid)
        for what, axes in {
            "k and ridge alone": ("neighbours", "ridge"),
            "definitions of curvature and rank": ("curvature", "rank"),
            "tokens and space": ("tokens", "space"),
            "everything": tuple(grid["axes"]),
        }.items():
            cells = [
                cell
                for cell in grid["cells"]
                if all(cell[axis] == paper[axis] for axis in grid["axes"] if axis not in axes)
            ]
            same = float(np.mean([cell["selected"] == paper["selected"] for cell in cells]))
            layers = sorted({cell["selected"] for cell in cells})
            findings.append(
                Finding(
                    scope=f"{name}, {len(cells)} protocols",
                    statistic=f"varied: {what}; share that selects layer {paper['selected']}, and "
                    "all layers that are selected",
                    value=f"{same:.0%}; {', '.join(map(str, layers))}",
                    rival="-",
                    verdict=_stability(same),
                    leads=what == "everything",
                )
            )
    return Claim(
        key="Q1",
        statement="The selected layer does not hang on how the score is defined.",
        commands=("dihal-bench locate --grid",),
        findings=tuple(findings),
    )


def carries_over(evidence: Evidence) -> Claim:
    """Q2: does bridge loss predict what comes out downstream?"""
    findings = []
    for axis in (*evidence.spans, LAYERS):
        sweeps = evidence.backbones(axis)
        for loss in DOWNSTREAM:
            statistic, taus = f"τ(bridge loss, {SHORT[loss]}) over layers", {}
            for name, own in sweeps.items():
                if loss not in own["losses"]:
                    continue
                fvu = np.array(own["losses"]["fvu_mmse"])
                interval = _tau_of_losses(fvu, np.array(own["losses"][loss]))
                taus[name] = interval["value"]
                findings.append(
                    Finding(
                        scope=_scope(own, axis),
                        statistic=statistic,
                        value=shown(interval),
                        rival="-",
                        verdict=of_trainings(by_interval(interval), len(fvu)),
                    )
                )
            findings += _over(taus, axis, statistic, rival="-", leads=axis != LAYERS)
    return Claim(
        key="Q2",
        statement="Bridge loss (FVU) ranks layers as what comes out of the model does.",
        commands=(_SWEEP, f"{_SWEEP} --span 2", f"{_SWEEP} --span 2 --backbones zoo"),
        findings=tuple(findings),
        remarks=(_ONE_BACKBONE,),
    )


def _over(
    values: Mapping[str, float | None], axis: str, statistic: str, *, rival: str, leads: bool
) -> list[Finding]:
    """Return what a statistic is over several backbones; nothing if there is only one."""
    if len(values) < 2:
        return []
    text, verdict = _replicated(values)
    return [
        Finding(
            scope=f"{len(values)} backbones, {_blocks(axis)}",
            statistic=f"{statistic}, mean over backbones",
            value=text,
            rival=rival,
            verdict=verdict,
            leads=leads,
        )
    ]


def _tau_of_losses(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return Kendall's tau of two losses over layers, with its interval over trainings."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(one), size=(_RESAMPLES, len(one)))
    taus = kendall(one[drawn].mean(1), other[drawn].mean(1))
    value = float(kendall(one.mean(0), other.mean(0)))
    lo, hi = np.nanpercentile(taus, (2.5, 97.5))
    return {"value": value, "lo": float(lo), "hi": float(hi)}


def causes(evidence: Evidence) -> Claim:
    """Q3: does the loss follow the geometry where nothing else moves?"""
    findings = []
    taus: dict[str, dict[str, float | None]] = {}
    for name, own in evidence.backbones(TRANSFORM).items():
        for loss, interval in own["intervention"]["tau"]["diffused"].items():
            taus.setdefault(loss, {})[name] = interval["value"]
            findings.append(
                Finding(
                    scope=_scope(own, TRANSFORM),
                    statistic=_WITHIN.format(SHORT[loss]),
                    value=shown(interval),
                    rival=_NULL,
                    verdict=of_trainings(by_interval(interval), len(own["seeds"])),
                )
            )
    for loss, some in taus.items():
        statistic = _WITHIN.format(SHORT[loss])
        findings += _over(some, TRANSFORM, statistic, rival=_NULL, leads=True)
    return Claim(
        key="Q3",
        statement="Where only the geometry moves, the loss follows the score.",
        commands=(f"{_SWEEP} --transform rotate,scale,spectrum:0,0.5,1 --layers 2,4,6",),
        findings=tuple(findings),
        remarks=(
            _ONE_BACKBONE,
            "Changes of coordinates are undone before the upper blocks: information, network and "
            "depth stay. The squared error that training minimises follows the coordinates too.",
        ),
    )


def _paper_cell(grid: Mapping[str, Any]) -> dict[str, Any]:
    paper = {
        "tokens": "all",
        "space": "raw",
        "curvature": "largest",
        "rank": "stable",
        "neighbours": 20,
        "ridge": 1e-3,
    }
    return next(c for c in grid["cells"] if all(c[axis] == v for axis, v in paper.items()))


def _scope(own: Mapping[str, Any], axis: str) -> str:
    """Return what a sweep was of, and what each of its runs spent."""
    tokens, seeds = own["budget"]["diffusion_tokens"], len(own["seeds"])
    trained = f"{tokens:,} tokens, {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{own['backbone']}, {_blocks(axis)}; {trained}"


def _blocks(axis: str) -> str:
    if axis == LAYERS:
        return "blocks (0, l] replaced"
    if axis == TRANSFORM:
        return "within layers"
    return f"blocks (l - {axis.removeprefix('span-')}, l] replaced"


RULES = (predicts, shallow, generates, stable, robust, carries_over, causes)
