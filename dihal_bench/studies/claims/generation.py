"""Generated text of several interfaces, compared seed by seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.core.markdown import counted
from dihal_bench.evaluation.intervals import over_trainings
from dihal_bench.evaluation.samples.frontier import curve_at
from dihal_bench.results.metrics import DISTINCT, ENERGY, ENTROPY, GEN_PPL, SELF_BLEU
from dihal_bench.studies.claims.claim import (
    UNDECIDED,
    Claim,
    Finding,
    all_of,
    by_interval,
    of_trainings,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dihal_bench.results.record import Record
    from dihal_bench.studies.claims.evidence import Evidence

REFERENCE = "hidden"

_APART = ("seed", "interface", "layer", "from_layer", "controls", "options")  # rows may differ in


@dataclass(frozen=True, order=True)
class _Place:
    """Whose texts are compared as one: trainings that differ in their seed alone.

    Attributes:
        name: of the interface.
        start: the block that it begins behind.
        layer: the last that it replaces.
        options: its own settings.
        terms: what rows must have in common to be compared: all other settings, and the task.
    """

    name: str
    start: int
    layer: int
    options: str
    terms: str

    @property
    def replaced(self) -> int:
        """How many blocks it stands for."""
        return self.layer - self.start

    def __str__(self) -> str:
        return f"{self.name} ({self.start}, {self.layer}]"


@dataclass
class _Text:
    """What one training's text was measured to be.

    Attributes:
        values: by metric.
        real: the same of real text.
        entropies: of the frontier's points.
        perplexities: of the same points.
    """

    values: dict[str, float] = field(default_factory=dict)
    real: Mapping[str, float] = field(default_factory=dict)
    entropies: list[float] = field(default_factory=list)
    perplexities: list[float] = field(default_factory=list)

    def at(self, entropy: float) -> float:
        """Return the perplexity where the frontier passes an entropy; NaN where it does not."""
        return curve_at(self.entropies, self.perplexities, entropy)


_Gain = Callable[[_Text, _Text], float]
_Texts = dict[tuple[int, int], _Text]  # (steps, seed)


def generates(evidence: Evidence) -> Claim:
    """C3: hidden generates better and more varied text than the other interfaces."""
    return Claim(
        key="C3",
        statement="At a matched budget, hidden beats embedding, latent and c2d in generative "
        "perplexity and in diversity.",
        commands=(
            "dihal-bench compare --seeds 0,1,2",
            "dihal-bench score RUN --tasks samples --steps 1,16 --frontier 0.8,0.9,1.0,1.15",
        ),
        findings=tuple(generation_findings(evidence.records)),
        every=True,
        remarks=(
            "Four parts, each with its verdict: generative perplexity at temperature 1 and at "
            "equal entropy (by a judge that is not the backbone, in nats per token), distinct-2 "
            "and self-BLEU. Whoever draws from fewer words has the lower perplexity, so both are "
            "compared at one entropy too: the other's own at temperature 1, to which hidden is "
            "heated or cooled, or hidden's. Noise is more varied than any text, so diversity "
            "counts by how near it is to that of real text; which of the two is more varied "
            "stands beside and decides nothing, and so does the energy distance, of features that "
            "no language model has a part in. What fools any of them is in the audit. From "
            "scratch hidden keeps all blocks above a low layer and the others keep none; the rows "
            "of equal replaced blocks lead, and all of them have to hold. Equal in number: hidden "
            "stands for the first blocks, where a look-up of tokens goes far, and the others for "
            "the last, so that a lead is of the place as much as of the space.",
        ),
    )


def generation_findings(records: Iterable[Record]) -> list[Finding]:
    """Compare the reference's text with every other interface's.

    A difference is taken seed by seed, at the same number of network evaluations, and turned so
    that above zero is better; its interval is Student's over seeds. Runs outside their budget are
    left out.
    """
    found: dict[_Place, _Texts] = defaultdict(dict)
    for record in records:
        if record.data["config"]["regime"] == "causal" and record.data["budget"]["within"]:
            for place, steps, seed, text in _texts(record):
                found[place][steps, seed] = text
    findings: list[Finding] = []
    for place in sorted(own for own in found if own.name != REFERENCE):
        alike = sorted(o for o in found if (o.name, o.terms) == (REFERENCE, place.terms))
        equal = [own for own in alike if own.replaced == place.replaced]
        for own in equal or alike:
            findings += _pairs(own, place, found[own], found[place], leads=bool(equal))
    return findings


def _texts(record: Record) -> Iterator[tuple[_Place, int, int, _Text]]:
    """Return what a run's own interface wrote, by task and number of evaluations."""
    config, own = record.data["config"], record.data["interface"]
    texts: dict[tuple[str, int], _Text] = defaultdict(_Text)
    for score in record.scores:
        if score.subject == own["name"] and score.signal == "generated":
            texts[score.task, score.steps].values[score.metric] = score.value
    for (task, steps), text in texts.items():
        audit = record.data.get("audits", {}).get(task, {})
        text.real = {name: one["value"] for name, one in audit.get("data", {}).items()}
        row = f"{own['name']} S={steps}"
        points = [point for point in audit.get("frontier", ()) if point["row"] == row]
        points.sort(key=lambda point: point["temperature"])
        text.entropies = [point[ENTROPY.key] for point in points]
        text.perplexities = [point[GEN_PPL.key] for point in points]
        common = {key: value for key, value in config.items() if key not in _APART}
        terms = [common, task, record.data["tasks"][task]["key"]]
        place = _Place(
            own["name"],
            own["from"],
            record.data["layer"],
            json.dumps(config.get("options"), sort_keys=True),
            json.dumps(terms, sort_keys=True),
        )
        yield place, steps, config["seed"], text


def _pairs(
    reference: _Place, rival: _Place, own: _Texts, other: _Texts, *, leads: bool
) -> Iterator[Finding]:
    common = sorted(set(own) & set(other))
    for steps in sorted({s for s, _ in common}):
        pairs = [(own[key], other[key]) for key in common if key[0] == steps]
        if any(GEN_PPL.key not in one.values for pair in pairs for one in pair):
            continue
        where = f"{reference} against {rival}, S = {steps}, {counted(len(pairs), 'seed')}"
        parts = [_part(pairs, gain) for gain in _GAINS.values()]
        yield Finding(
            scope=where,
            statistic="; ".join(_GAINS),
            value="; ".join(f"{value} {verdict}" for value, verdict in parts),
            rival=f"{rival.name}: {_means(pairs)}",
            verdict=all_of(*(verdict for _, verdict in parts)),
            leads=leads,
        )
        for statistic, gain in _BESIDE.items():
            value, verdict = _part(pairs, gain)
            yield Finding(
                scope=where, statistic=statistic, value=value, rival=rival.name, verdict=verdict
            )


def _part(pairs: list[tuple[_Text, _Text]], gain: _Gain) -> tuple[str, str]:
    """Return a part's mean over seeds with its interval, as text, and its verdict."""
    values = np.array([gain(own, other) for own, other in pairs])
    if not np.isfinite(values).all():
        return "not measured", UNDECIDED
    lo, hi = over_trainings(values) or (None, None)
    ends = {"lo": None if lo is None else float(lo), "hi": None if hi is None else float(hi)}
    interval = {"value": float(values.mean()), **ends}
    return shown(interval, "+.3g"), of_trainings(by_interval(interval), len(values))


def _less_perplexing(own: _Text, other: _Text) -> float:
    return float(np.log(other.values[GEN_PPL.key] / own.values[GEN_PPL.key]))


def _at_equal_entropy(own: _Text, other: _Text) -> float:
    """Compare at the other's entropy, or else at the own one; NaN: curves do not reach so far."""
    there = float(np.log(other.values[GEN_PPL.key] / own.at(other.values[ENTROPY.key])))
    if np.isfinite(there):
        return there
    return float(np.log(other.at(own.values[ENTROPY.key]) / own.values[GEN_PPL.key]))


def _nearer(metric: str) -> _Gain:
    def gain(own: _Text, other: _Text) -> float:
        texts = [(text.values.get(metric), text.real.get(metric)) for text in (own, other)]
        away = [abs(a - b) if a is not None and b is not None else np.nan for a, b in texts]
        return away[1] - away[0]

    return gain


def _more_varied(own: _Text, other: _Text) -> float:
    return own.values.get(DISTINCT[2].key, np.nan) - other.values.get(DISTINCT[2].key, np.nan)


def _less_distant(own: _Text, other: _Text) -> float:
    return other.values.get(ENERGY.key, np.nan) - own.values.get(ENERGY.key, np.nan)


_GAINS: dict[str, _Gain] = {
    "gen-PPL, nats less": _less_perplexing,
    "at equal entropy": _at_equal_entropy,
    "distinct-2, nearer to real text": _nearer(DISTINCT[2].key),
    "self-BLEU, nearer": _nearer(SELF_BLEU.key),
}
_BESIDE: dict[str, _Gain] = {  # of no part in the verdict
    "distinct-2: more varied by, whatever real text's is": _more_varied,
    "energy distance to real text: less by": _less_distant,
}


def _means(pairs: list[tuple[_Text, _Text]]) -> str:
    """Return what the other's text is beside the reference's: means over seeds."""
    parts = []
    for metric in (GEN_PPL, ENTROPY, DISTINCT[2]):
        mean = [np.mean([pair[i].values.get(metric.key, np.nan) for pair in pairs]) for i in (1, 0)]
        parts.append(f"{metric.title} {mean[0]:,.3g} ({mean[1]:,.3g})")
    return ", ".join(parts)
