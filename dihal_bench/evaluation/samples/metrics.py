"""All metrics of a set of samples, by name; each with its interval where there is one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.intervals import DocumentBootstrap
from dihal_bench.evaluation.samples.distribution import FEW, energy_distance, mauve, typicality
from dihal_bench.evaluation.samples.diversity import (
    distinct,
    duplicates,
    repetitions,
    self_bleu,
    words,
)
from dihal_bench.evaluation.samples.settings import Measure
from dihal_bench.results.metrics import (
    DISTINCT,
    DUPLICATES,
    ENERGY,
    ENTROPY,
    GEN_PPL,
    GEN_PPL_BEGUN,
    MAUVE,
    METRICS,
    OVERLAP,
    REPEATED,
    SELF_BLEU,
    TYPICALITY,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from dihal_bench.evaluation.intervals import Array
    from dihal_bench.evaluation.samples.settings import MeasuredSamples
    from dihal_bench.results.metrics import Metric

_LARGEST = 700.0  # nats per token, of which a perplexity is still a number
_GROUPS = 20  # of a jackknife


class NotGiven(Exception):
    """A metric cannot be given for these samples; the text says why."""


def measure(
    subject: MeasuredSamples, *, only: Collection[str] = ()
) -> tuple[dict[str, Measure], dict[str, str]]:
    """Return metrics by name, all by default, and why others cannot be given."""
    found, missing = {}, {}
    for name, compute in measures().items():
        if only and name not in only:
            continue
        try:
            found[name] = replace(compute(subject), unit=METRICS[name].unit)
        except NotGiven as reason:
            missing[name] = str(reason)
    return found, missing


def bootstrap(subject: MeasuredSamples, count: int) -> DocumentBootstrap:
    """Return resamples of so many samples."""
    own = subject.settings
    return DocumentBootstrap(count, resamples=own.resamples, seed=own.seed)


def _mean(subject: MeasuredSamples, values: Array) -> Measure:
    """Return the mean over the samples that have a value."""
    able = np.isfinite(values)
    count = int(able.sum())
    if not count:
        raise NotGiven("all samples are too short")
    estimate = bootstrap(subject, count).ratio(values[able], np.ones(count))
    return Measure(value=estimate.value, lo=estimate.lo, hi=estimate.hi, n=count)


def _perplexity(subject: MeasuredSamples, nll: Array, tokens: Array) -> Measure:
    """Token-weighted: exp(sum of NLL / sum of tokens)."""
    if not tokens.sum():
        raise NotGiven("no sample has a token that is scored")
    estimate = bootstrap(subject, len(nll)).ratio(nll, tokens)
    values = (estimate.value, estimate.lo, estimate.hi)
    if not all(math.isfinite(v) and v < _LARGEST for v in values):
        raise NotGiven("the perplexity is no number that could be written")
    value, lo, hi = map(math.exp, values)
    details = {"empty": subject.judged.empty, "sum_nll": float(nll.sum()), "samples": len(nll)}
    return Measure(value=value, lo=lo, hi=hi, n=int(tokens.sum()), details=details)


def _generative_begun(subject: MeasuredSamples) -> Measure:
    judged = subject.judged
    return _perplexity(subject, np.nan_to_num(judged.nll_begun), judged.tokens_begun)


def _distinct(n: int) -> Callable[[MeasuredSamples], Measure]:
    def compute(subject: MeasuredSamples) -> Measure:
        rows = subject.equal
        value = distinct(rows, n)
        if not math.isfinite(value):
            raise NotGiven("all samples are too short")
        lo, hi = _jackknife(len(rows), value, lambda kept: distinct([rows[i] for i in kept], n))
        details = {"over": "all samples together"}
        return Measure(value=value, lo=lo, hi=hi, n=len(rows), details=details)

    return compute


def _self_bleu(subject: MeasuredSamples) -> Measure:
    """Values of samples that are each other's references: their mean has no simple interval."""
    own = subject.settings
    texts = subject.samples.texts[: len(subject.equal)]
    chosen = np.random.default_rng(own.seed).permutation(len(texts))[: own.bleu]
    scores = self_bleu([words(texts[i]) for i in chosen])
    return Measure(value=float(scores.mean()), lo=None, hi=None, n=len(chosen))


def _duplicates(subject: MeasuredSamples) -> Measure:
    rows = subject.equal
    share = float(duplicates(rows).mean())
    return Measure(value=share, lo=None, hi=None, n=len(rows))


def _repeated(n: int) -> Callable[[MeasuredSamples], Measure]:
    return lambda subject: _mean(subject, repetitions(subject.samples.ids, n))


def _overlap(n: int) -> Callable[[MeasuredSamples], Measure]:
    def compute(subject: MeasuredSamples) -> Measure:
        found = _mean(subject, subject.yard.seen[n].shares(subject.samples.ids))
        tokens, covered = subject.yard.covered
        found.details.update(trained_on=tokens, covered=covered)
        return found

    return compute


def _mauve(subject: MeasuredSamples) -> Measure:
    real = subject.yard.judged.features
    own = subject.judged.features[: len(subject.equal)]
    own = own[own.any(axis=1)]
    settings = subject.settings
    seeds = range(settings.seed, settings.seed + settings.mauve_seeds)
    try:
        spread = mauve(own, real, seeds=seeds)
    except UserError as error:
        raise NotGiven(str(error)) from error
    least = min(len(own), len(real))
    details = {
        "seeds": settings.mauve_seeds,
        "least": spread.lo,
        "largest": spread.hi,
        "few": least < FEW,
        "real": len(real),
    }
    return Measure(value=spread.value, lo=None, hi=None, n=least, details=details)


def _energy(subject: MeasuredSamples) -> Measure:
    own, real, settings = subject.features, subject.yard.features, subject.settings
    found = energy_distance(own, real, permutations=settings.permutations, seed=settings.seed)
    lo, hi = _jackknife(
        len(own),
        found.value,
        lambda kept: energy_distance(own[kept], real, permutations=0, seed=0).value,
    )
    details = {
        "p": found.p,
        "permutations": settings.permutations,
        "real": len(real),
        "interval": "over samples, beside this real text",
    }
    return Measure(
        value=found.value,
        lo=lo,
        hi=hi,
        n=len(own),
        details=details,
    )


def _jackknife(
    count: int, whole: float, value: Callable[[NDArray[np.int64]], float]
) -> tuple[float, float]:
    """Return a 95 % interval from leaving out one of twenty groups of rows at a time."""
    groups = min(_GROUPS, count // 2)
    place = np.arange(count)
    parts = np.array([value(place[place % groups != group]) for group in range(groups)])
    error = math.sqrt((groups - 1) * parts.var())
    return whole - 1.96 * error, whole + 1.96 * error


def measures() -> dict[str, Callable[[MeasuredSamples], Measure]]:
    """Return what computes each metric of samples; plug-ins bring their own."""
    declared = {metric.key: metric.of_samples for metric in METRICS if metric.of_samples}
    return {metric.key: compute for metric, compute in _MEASURES} | declared


_MEASURES: tuple[tuple[Metric, Callable[[MeasuredSamples], Measure]], ...] = (
    (GEN_PPL, lambda s: _perplexity(s, s.judged.nll, s.judged.tokens)),
    (GEN_PPL_BEGUN, _generative_begun),
    (ENTROPY, lambda s: _mean(s, s.entropies)),
    *((metric, _distinct(n)) for n, metric in DISTINCT.items()),
    *((metric, _repeated(n)) for n, metric in REPEATED.items()),
    (SELF_BLEU, _self_bleu),
    (DUPLICATES, _duplicates),
    *((metric, _overlap(n)) for n, metric in OVERLAP.items()),
    (MAUVE, _mauve),
    (ENERGY, _energy),
    (TYPICALITY, lambda s: _mean(s, typicality(s.features, s.yard.features))),
)
