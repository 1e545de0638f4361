"""All scores of a set of samples, each with its interval and what it is measured against."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.errors import UserError
from dihal_bench.scoring.intervals import DocumentBootstrap
from dihal_bench.scoring.samples.distribution import FEW, energy_distance, mauve, typicality
from dihal_bench.scoring.samples.diversity import (
    Seen,
    distinct,
    duplicates,
    entropies,
    repetitions,
    self_bleu,
    words,
)
from dihal_bench.scoring.samples.features import text_features

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from dihal_bench.scoring.intervals import Array
    from dihal_bench.scoring.samples.judge import Judge, Judged
    from dihal_bench.scoring.samples.texts import Samples
    from dihal_bench.text.tokens import PackedTokens

VERSION = 1  # of every score in this package
_LARGEST = 700.0  # nats per token, of which a perplexity is still a number
_OVERLAPS = (4, 8)
_MOST_TRAINING = 1 << 25  # tokens whose n-grams are kept


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of a set of samples.

    Attributes:
        value: the number.
        lo: lower end of its 95 % interval; of MAUVE the least over seeds of k-means.
        hi: upper end of it, or the largest.
        unit: of the value.
        n: samples, or tokens, that it is a mean over.
        details: what else belongs to it.
    """

    value: float
    lo: float
    hi: float
    unit: str
    n: int
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How samples are measured.

    Attributes:
        bleu: samples of which self-BLEU is computed, drawn with the seed.
        mauve_seeds: of k-means.
        permutations: of the test of the energy distance.
        resamples: of bootstrap intervals over samples.
        seed: of all of them.
    """

    bleu: int = 500
    mauve_seeds: int = 5
    permutations: int = 500
    resamples: int = 2000
    seed: int = 0


class Yardstick:
    """What samples are measured with: a judge, real text, and the text that was trained on."""

    def __init__(
        self, judge: Judge, real: Samples, training: PackedTokens, settings: Settings | None = None
    ):
        self.judge, self.real = judge, real
        self.settings = settings or Settings()
        self.judged = judge.read(real, label="judge real text")
        self.features = text_features(real.texts)
        tokens = training.stream(_MOST_TRAINING)
        self.seen = {n: Seen(tokens, n) for n in _OVERLAPS}

    def measure(self, samples: Samples, *, only: Collection[str] = ()) -> dict[str, Measure]:
        """Return metrics by name, all by default; those that cannot be given are left out.

        Raises:
            UserError: there are no samples.
        """
        if not len(samples):
            raise UserError("0 samples cannot be scored; draw 1 or more.")
        subject = _Subject(samples, self.judge.read(samples), self)
        wanted = {name: metric for name, metric in METRICS.items() if not only or name in only}
        return {
            name: found for name, metric in wanted.items() if (found := metric.compute(subject))
        }


@dataclass(frozen=True)
class _Subject:
    samples: Samples
    judged: Judged
    yard: Yardstick

    @property
    def settings(self) -> Settings:
        return self.yard.settings

    def mean(self, values: Array, unit: str) -> Measure | None:
        """Return the mean over the samples that have a value."""
        able = np.isfinite(values)
        if not able.any():
            return None
        estimate = self.bootstrap(int(able.sum())).ratio(values[able], np.ones(able.sum()))
        return Measure(
            value=estimate.value, lo=estimate.lo, hi=estimate.hi, unit=unit, n=int(able.sum())
        )

    def bootstrap(self, count: int) -> DocumentBootstrap:
        own = self.settings
        return DocumentBootstrap(count, resamples=own.resamples, seed=own.seed)


@dataclass(frozen=True)
class Metric:
    """What a metric is.

    Attributes:
        label: for people.
        best: "low", "high", or "data": as near as can be to what real text has.
        compute: of a subject; None: it cannot be given.
    """

    label: str
    best: str
    compute: Callable[[_Subject], Measure | None]


def _perplexity(subject: _Subject, nll: Array, tokens: Array) -> Measure | None:
    """Token-weighted: exp(sum of NLL / sum of tokens)."""
    if not tokens.sum():
        return None
    estimate = subject.bootstrap(len(nll)).ratio(nll, tokens)
    values = (estimate.value, estimate.lo, estimate.hi)
    if not all(math.isfinite(v) and v < _LARGEST for v in values):
        return None
    value, lo, hi = map(math.exp, values)
    details = {"empty": subject.judged.empty, "sum_nll": float(nll.sum()), "samples": len(nll)}
    return Measure(
        value=value, lo=lo, hi=hi, unit="per token", n=int(tokens.sum()), details=details
    )


def _generative(subject: _Subject) -> Measure | None:
    judged = subject.judged
    return _perplexity(subject, judged.nll, judged.tokens)


def _generative_begun(subject: _Subject) -> Measure | None:
    judged = subject.judged
    return _perplexity(subject, np.nan_to_num(judged.nll_begun), judged.tokens_begun)


def _distinct(n: int) -> Callable[[_Subject], Measure | None]:
    def compute(subject: _Subject) -> Measure | None:
        value = distinct(subject.samples.ids, n)
        if not math.isfinite(value):
            return None
        rows = subject.samples.ids
        low, high = _halves(rows, lambda part: distinct(part, n))
        return Measure(
            value=value,
            lo=min(value, low),
            hi=max(value, high),
            unit="share",
            n=len(rows),
            details={
                "over": "all samples",
                "interval": "its halves: it falls as samples are added",
            },
        )

    return compute


def _halves(
    rows: Sequence[Sequence[int]], value: Callable[[Sequence[Sequence[int]]], float]
) -> tuple[float, float]:
    found = [value(part) for part in (rows[::2], rows[1::2]) if part]
    found = [v for v in found if math.isfinite(v)] or [math.inf]
    return min(found), max(found)


def _self_bleu(subject: _Subject) -> Measure | None:
    own, texts = subject.settings, subject.samples.texts
    if len(texts) < 2:
        return None
    chosen = np.random.default_rng(own.seed).permutation(len(texts))[: own.bleu]
    found = subject.mean(self_bleu([words(texts[i]) for i in chosen]), "share")
    return found


def _overlap(n: int) -> Callable[[_Subject], Measure | None]:
    def compute(subject: _Subject) -> Measure | None:
        return subject.mean(subject.yard.seen[n].shares(subject.samples.ids), "share")

    return compute


def _mauve(subject: _Subject) -> Measure | None:
    able = subject.judged.features.any(axis=1)
    real = subject.yard.judged.features
    least = min(int(able.sum()), len(real))
    try:
        spread = mauve(
            subject.judged.features[able],
            real,
            seeds=range(
                subject.settings.seed, subject.settings.seed + subject.settings.mauve_seeds
            ),
        )
    except UserError:
        return None
    return Measure(
        value=spread.value,
        lo=spread.lo,
        hi=spread.hi,
        unit="score",
        n=least,
        details={"seeds": subject.settings.mauve_seeds, "few": least < FEW, "real": len(real)},
    )


def _energy(subject: _Subject) -> Measure | None:
    own, real = text_features(subject.samples.texts), subject.yard.features
    if min(len(own), len(real)) < 2:
        return None
    settings = subject.settings
    found = energy_distance(own, real, permutations=settings.permutations, seed=settings.seed)
    lo, hi = _jackknife(own, lambda part: energy_distance(part, real, permutations=0, seed=0).value)
    return Measure(
        value=found.value,
        lo=min(lo, found.value),
        hi=max(hi, found.value),
        unit="standard deviations",
        n=len(own),
        details={"p": found.p, "permutations": settings.permutations, "real": len(real)},
    )


def _jackknife(rows: Array, value: Callable[[Array], float]) -> tuple[float, float]:
    """Return a 95 % interval from leaving out one of twenty groups of rows at a time."""
    groups = min(20, len(rows) // 2)
    if groups < 2:
        return -math.inf, math.inf
    place = np.arange(len(rows)) % groups
    parts = np.array([value(rows[place != group]) for group in range(groups)])
    whole, error = value(rows), math.sqrt((groups - 1) * parts.var())
    return whole - 1.96 * error, whole + 1.96 * error


def _typicality(subject: _Subject) -> Measure | None:
    own = text_features(subject.samples.texts)
    return subject.mean(typicality(own, subject.yard.features), "share")


METRICS: dict[str, Metric] = {
    "gen_ppl": Metric("gen-PPL", "low", _generative),
    "gen_ppl_begun": Metric("gen-PPL after BOS", "low", _generative_begun),
    "entropy": Metric("entropy", "data", lambda s: s.mean(entropies(s.samples.ids), "nats/sample")),
    "distinct_1": Metric("distinct-1", "data", _distinct(1)),
    "distinct_2": Metric("distinct-2", "data", _distinct(2)),
    "rep_2": Metric("rep-2", "data", lambda s: s.mean(repetitions(s.samples.ids, 2), "share")),
    "rep_4": Metric("rep-4", "data", lambda s: s.mean(repetitions(s.samples.ids, 4), "share")),
    "self_bleu": Metric("self-BLEU", "data", _self_bleu),
    "duplicates": Metric(
        "duplicates", "data", lambda s: s.mean(duplicates(s.samples.ids), "share")
    ),
    "overlap_4": Metric("4-grams seen", "data", _overlap(4)),
    "overlap_8": Metric("8-grams seen", "data", _overlap(8)),
    "mauve": Metric("MAUVE", "high", _mauve),
    "energy": Metric("energy", "low", _energy),
    "typicality": Metric("typicality", "data", _typicality),
}
