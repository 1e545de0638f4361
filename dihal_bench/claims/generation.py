"""Generated text of several interfaces, compared seed by seed."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.claims.claim import Claim, Finding, by_interval, of_trainings, shown
from dihal_bench.scoring.intervals import over_trainings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dihal_bench.claims.evidence import Evidence
    from dihal_bench.records import Record

REFERENCE = "hidden"
METRICS = {  # name -> whether higher is better
    "gen_ppl": False,
    "gen_ppl_at_entropy": False,
    "distinct_2": True,
    "self_bleu": False,
}

_Place = tuple[str, int, str]  # interface, replaced blocks, what rows have in common
_Key = tuple[str, int, int]  # metric, steps, seed


def generates(evidence: Evidence) -> Claim:
    """C3: hidden generates better and more varied text than the other interfaces."""
    return Claim(
        key="C3",
        statement="At a matched budget, hidden beats embedding, latent and c2d in generative "
        "perplexity and in diversity.",
        commands=("dihal-bench compare --seeds 0,1,2", "dihal-bench score RUN --tasks samples"),
        findings=tuple(generation_findings(evidence.records)),
        remarks=(
            "Generative perplexity is by a judge that is not the backbone; what fools it is in the "
            "audit. From scratch hidden keeps all blocks above a low layer and the others keep "
            "none; the rows of equal replaced blocks lead.",
        ),
    )


def generation_findings(records: Iterable[Record]) -> list[Finding]:
    """Compare the reference's text with every other interface's.

    A difference is taken seed by seed, at the same number of network evaluations, and turned so
    that above zero is better; its interval is Student's over seeds. Runs outside their budget are
    left out.
    """
    found: dict[_Place, dict[_Key, float]] = defaultdict(dict)
    for record in records:
        config, own = record.data["config"], record.data["interface"]
        if config["regime"] != "causal" or not record.data["budget"]["within"]:
            continue
        place = own["name"], own["replaced"], _terms(config)
        for score in record.scores:
            mine = score.subject == own["name"] and score.signal == "generated"
            if mine and score.metric in METRICS:
                found[place][score.metric, score.steps, config["seed"]] = score.value
    findings: list[Finding] = []
    for (name, replaced, terms), values in sorted(found.items(), key=lambda item: item[0]):
        if name == REFERENCE:
            continue
        reference = {r: own for (n, r, t), own in found.items() if (n, t) == (REFERENCE, terms)}
        equal = replaced in reference
        for other in [replaced] if equal else sorted(reference):
            findings += _pair(name, replaced, values, other, reference[other], leads=equal)
    return findings


def _terms(config: Mapping[str, Any]) -> str:
    """Return what rows must have in common to be compared: budget, losses, backbone, text."""
    parts = [config.get(key) for key in ("budget", "losses", "backbone", "corpus", "train")]
    return json.dumps(parts, sort_keys=True)


def _pair(
    name: str,
    replaced: int,
    values: dict[_Key, float],
    own_replaced: int,
    own: dict[_Key, float],
    *,
    leads: bool,
) -> Iterable[Finding]:
    steps = max((s for _, s, _ in set(values) & set(own)), default=None)
    for metric, higher in METRICS.items():
        seeds = sorted(seed for m, s, seed in set(values) & set(own) if (m, s) == (metric, steps))
        if not seeds:
            continue
        sign = 1 if higher else -1
        differences = np.array(
            [sign * (own[metric, s, k] - values[metric, s, k]) for s, k in _at(steps, seeds)]
        )
        interval = _student(differences)
        mean = [np.mean([v[metric, s, k] for s, k in _at(steps, seeds)]) for v in (own, values)]
        yield Finding(
            scope=f"{REFERENCE} ({own_replaced} blocks replaced) against {name} ({replaced}), "
            f"S = {steps}, {len(seeds)} seeds",
            statistic=f"{metric}: {mean[0]:.3g} against {mean[1]:.3g}; better by",
            value=shown(interval, "+.3g"),
            rival=name,
            verdict=of_trainings(by_interval(interval), len(seeds)),
            leads=leads,
        )


def _at(steps: int | None, seeds: list[int]) -> list[tuple[int, int]]:
    assert steps is not None
    return [(steps, seed) for seed in seeds]


def _student(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    lo, hi = over_trainings(values) or (None, None)
    ends = {"lo": None if lo is None else float(lo), "hi": None if hi is None else float(hi)}
    return {"value": float(values.mean()), **ends}
