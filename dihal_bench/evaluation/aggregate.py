"""From sums per document to scores with intervals, and the table that ``run`` prints."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dihal_bench.evaluation.intervals import DocumentBootstrap
from dihal_bench.evaluation.likelihood import SAMPLED, TEACHER, TRUE, VERSION, Row, Totals
from dihal_bench.results.fields import CONVERGED
from dihal_bench.results.metrics import (
    BITS_PER_BYTE,
    DIFFUSION_GAIN,
    KL,
    KL_MINUS_INTERFACE,
    METRICS,
    NLL,
    NLL_MINUS_INTERFACE,
    NLL_MINUS_TEACHER,
    PPL,
    SEQUENCE_PREFIX,
    WORD_PPL,
)
from dihal_bench.results.record import Score
from dihal_bench.results.table import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dihal_bench.results.metrics import Metric

_LARGEST_EXPONENT = 700.0  # of a perplexity that a float can hold
_PREFIX = {"causal": "", "sequence": SEQUENCE_PREFIX}  # scores of regimes never share a name


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What all scores of one evaluation have in common."""

    task: str
    regime: str
    dtype: str
    resamples: int
    seed: int

    def metric(self, name: str) -> str:
        """Return what a metric is called in this regime."""
        return f"{_PREFIX[self.regime]}{name}"


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What scores depend on of the interface that they are of.

    Attributes:
        stochastic: a diffusion interface; the others are controls.
        likelihood: what it recovers may be scored as a distribution.
        decoder_steps: network evaluations per chain that its recovery adds.
        redraws: signals are estimated once more when the tokens of their block are known.
    """

    stochastic: bool = False
    likelihood: bool = True
    decoder_steps: int = 0
    redraws: bool = False

    def evaluations(self, steps: int) -> int:
        """Return the network evaluations per place of a chain of so many steps."""
        return steps + int(self.redraws) + self.decoder_steps


def scores_of(
    totals: Mapping[Row, Totals],
    traits: Mapping[str, Traits],
    measured: Measured,
    *,
    reference: Row,
) -> list[Score]:
    """Turn sums into scores: NLL and its units, all means over tokens, differences, gain.

    Args:
        totals: sums per document of every row; the teacher's must be there.
        traits: subject -> what kind of interface it is; the teacher needs none.
        measured: what they have in common.
        reference: the row, as a single chain, that every other is compared with in pairs.
    """
    teacher = totals[Row(subject=TEACHER)]
    bootstrap = DocumentBootstrap(
        len(teacher.tokens), resamples=measured.resamples, seed=measured.seed
    )
    scores: list[Score] = []
    for row, sums in totals.items():
        for chains in _ensemble_sizes(sums):
            own = traits.get(row.subject, _TEACHER)
            if row.signal == TRUE:
                own = replace(own, stochastic=False, likelihood=False)
            make = _Maker(row, chains, own, sums, measured)
            if make.traits.likelihood:
                scores += _likelihoods(make, sums, chains, bootstrap)
            scores += _means(make, chains, bootstrap, of_teacher=True)
            if row.subject != TEACHER:
                scores += _against(make, sums, chains, teacher, bootstrap)
            comparable = make.traits.likelihood and traits[reference.subject].likelihood
            if (row, chains) != (reference, 1) and comparable:
                scores += _versus(make, sums, chains, reference, totals[reference], bootstrap)
    return [*scores, *_gains(totals, traits, measured, bootstrap)]


_TEACHER = Traits()


class _Maker:
    """Makes the scores of one row at one ensemble size."""

    def __init__(self, row: Row, chains: int, traits: Traits, sums: Totals, measured: Measured):
        self.row, self.chains, self.traits = row, chains, traits
        self.sums, self.measured = sums, measured

    def __call__(
        self, metric: Metric, estimate: Estimate, *, kind: str = "ensemble", **details: Any
    ) -> Score:
        return Score(
            subject=self.row.subject,
            metric=self.measured.metric(metric.key),
            value=estimate.value,
            lo=estimate.lo,
            hi=estimate.hi,
            kind=kind if self.traits.stochastic else "exact",
            n=int(self.sums.tokens.sum()),
            unit=metric.unit,
            task=self.measured.task,
            regime=self.measured.regime,
            version=VERSION,
            dtype=self.measured.dtype,
            steps=self.row.steps,
            chains=self.chains,
            nfe=self.traits.evaluations(self.row.steps) * self.chains,
            signal=self.row.signal,
            details=details,
        )


def _ensemble_sizes(sums: Totals) -> list[int]:
    return NLL.sizes(sums.sums)


def _likelihoods(
    make: _Maker, sums: Totals, chains: int, bootstrap: DocumentBootstrap
) -> Iterator[Score]:
    nll = sums.sums[NLL.at(chains)]
    details: dict[str, Any] = {
        "sum_nll": float(nll.sum()),
        "tokens": int(sums.tokens.sum()),
        "words": int(sums.words.sum()),
        "bytes": int(sums.bytes.sum()),
        "documents": len(nll),
    }
    if chains > 1:
        change = float((sums.sums[NLL.at(chains // 2)] - nll).sum() / sums.tokens.sum())
        details |= {"change_from_half": change, "converged": change < CONVERGED}
    per_token = bootstrap.ratio(nll, sums.tokens)
    yield make(NLL, per_token, **details)
    yield from _perplexity(make, PPL, per_token)
    if sums.words.sum():
        yield from _perplexity(make, WORD_PPL, bootstrap.ratio(nll, sums.words))
    if sums.bytes.sum():
        yield make(BITS_PER_BYTE, bootstrap.ratio(nll / math.log(2), sums.bytes))


def _perplexity(make: _Maker, metric: Metric, nll: Estimate) -> Iterator[Score]:
    if nll.hi < _LARGEST_EXPONENT:
        yield make(metric, Estimate(*(math.exp(v) for v in (nll.value, nll.lo, nll.hi))))


def _means(
    make: _Maker, chains: int, bootstrap: DocumentBootstrap, *, of_teacher: bool
) -> Iterator[Score]:
    """Make the scores that are means over tokens, but for NLL, which has units of its own.

    Those that are unbiased however many chains there are have one value per row; distances to the
    teacher have one of all chains, and one that is a mean over single ones.
    """
    for metric in sorted(METRICS, key=lambda own: own.mean is not None and own.mean.likelihood):
        mean = metric.mean
        if mean is None or metric is NLL or mean.of_teacher is not of_teacher:
            continue
        name = metric.sum_of(chains, make.row.chains)
        able = make.traits.likelihood or not mean.likelihood
        if able and name in make.sums.sums:  # older sums, and those of others, may lack it
            kind = "estimate" if mean.unbiased else "ensemble"
            yield make(metric, bootstrap.ratio(*make.sums.per_token(name)), kind=kind)


def _against(
    make: _Maker, sums: Totals, chains: int, teacher: Totals, bootstrap: DocumentBootstrap
) -> Iterator[Score]:
    """Distances to the teacher."""
    if make.traits.likelihood:
        pair = sums.per_token(NLL.at(chains)), teacher.per_token(NLL.at(1))
        yield make(NLL_MINUS_TEACHER, bootstrap.difference(*pair), paired="documents")
    yield from _means(make, chains, bootstrap, of_teacher=False)


def _versus(
    make: _Maker,
    sums: Totals,
    chains: int,
    reference: Row,
    other: Totals,
    bootstrap: DocumentBootstrap,
) -> Iterator[Score]:
    """Paired differences to a single chain of the reference row; of KL for single chains only."""
    details: dict[str, Any] = {
        "reference": reference.subject,
        "reference_steps": reference.steps,
        "paired": "documents",
    }
    pair = bootstrap.difference(sums.per_token(NLL.at(chains)), other.per_token(NLL.at(1)))
    yield make(NLL_MINUS_INTERFACE, pair, **details)
    if chains == 1:
        pair = bootstrap.difference(sums.per_token(KL.single), other.per_token(KL.single))
        yield make(KL_MINUS_INTERFACE, pair, **details)


def _gains(
    totals: Mapping[Row, Totals],
    traits: Mapping[str, Traits],
    measured: Measured,
    bootstrap: DocumentBootstrap,
) -> Iterator[Score]:
    """Diffusion gain: NLL of the best control, at no more evaluations, minus the row's."""
    known = {row: traits.get(row.subject, Traits(likelihood=False)) for row in totals}
    controls = [r for r, own in known.items() if own.likelihood and not own.stochastic]
    for row, own in known.items():
        if not (own.stochastic and own.likelihood) or row.signal != SAMPLED:
            continue
        for chains in _ensemble_sizes(totals[row]):
            spent = (row.steps + own.decoder_steps) * chains
            able = [r for r in controls if r.steps + known[r].decoder_steps <= spent]
            if not able:
                continue
            best = min(able, key=lambda r: float(totals[r].sums[NLL.at(1)].sum()))
            pair = totals[best].per_token(NLL.at(1)), totals[row].per_token(NLL.at(chains))
            gain = bootstrap.difference(*pair)
            make = _Maker(row, chains, own, totals[row], measured)
            details: dict[str, Any] = {"control": best.subject, "control_steps": best.steps}
            yield make(DIFFUSION_GAIN, gain, **details)
