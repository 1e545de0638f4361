"""What sets of samples are measured with, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.samples.diversity import Seen, entropies
from dihal_bench.evaluation.samples.features import text_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.data.tokens import PackedTokens
    from dihal_bench.evaluation.intervals import Array
    from dihal_bench.evaluation.samples.judge import Judge, Judged
    from dihal_bench.evaluation.samples.sampling import Samples

VERSION = 1  # of every score in this package
LEAST = 4  # samples of a set, and real texts
_OVERLAPS = (4, 8)
_MOST_TRAINING = 1 << 25  # tokens of a text whose n-grams are kept


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of a set of samples.

    Attributes:
        value: the number.
        lo: lower end of its 95 % interval over samples; None: there is none that would cover.
        hi: upper end of it.
        n: samples, or tokens, that it is a mean over.
        details: what else belongs to it.
        unit: of the value, which ``measure`` fills in.
    """

    value: float
    lo: float | None
    hi: float | None
    n: int
    details: dict[str, Any] = field(default_factory=dict)
    unit: str = ""


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

    def __post_init__(self) -> None:
        least = {"bleu": 2, "mauve_seeds": 1, "permutations": 9, "resamples": 100, "seed": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise UserError(f"samples.{name}={getattr(self, name)} must be {value} or more.")


class SampleMetricContext:
    """What samples are measured with: a judge, real text, and the text that was trained on.

    Attributes:
        judge: reads samples.
        real: text that distances are measured to.
        judged: what the judge says of it.
        features: of it, [m, D].
        seen: n -> the n-grams of the text that was trained on.
        covered: tokens of that text, and how many of them ``seen`` knows.
        size: samples of a set that metrics use which depend on how many there are.
    """

    def __init__(
        self,
        judge: Judge,
        real: Samples,
        trained_on: Sequence[PackedTokens],
        settings: Settings | None = None,
        *,
        size: int = 0,
    ):
        """Measure the real text, and note what was trained on.

        Args:
            judge: reads samples.
            real: text that distances are measured to.
            trained_on: what interfaces and backbone may know.
            settings: of the metrics.
            size: see the attribute; 0: all.
        """
        self.judge, self.real = judge, real
        self.settings, self.size = settings or Settings(), size
        self.judged = judge.read(real, label="judge real text")
        self.features = text_features(real.texts)
        texts = [text.stream(_MOST_TRAINING) for text in trained_on]
        self.seen = {n: Seen(texts, n) for n in _OVERLAPS}
        self.covered = sum(text.tokens for text in trained_on), sum(map(len, texts))

    def subject(self, samples: Samples) -> MeasuredSamples:
        """Have samples judged.

        Raises:
            UserError: there are too few.
        """
        if len(samples) < LEAST:
            raise UserError(f"{len(samples)} samples cannot be scored; draw {LEAST} or more.")
        return MeasuredSamples(samples, self.judge.read(samples), self)


@dataclass(frozen=True)
class MeasuredSamples:
    """Samples with what several metrics look at.

    Attributes:
        samples: the texts.
        judged: what the judge says of them.
        yard: what they are measured with.
    """

    samples: Samples
    judged: Judged
    yard: SampleMetricContext

    @property
    def settings(self) -> Settings:
        """Of the metrics."""
        return self.yard.settings

    @property
    def equal(self) -> Sequence[Sequence[int]]:
        """Tokens of as many samples as every set has."""
        return self.samples.ids[: self.yard.size or None]

    @cached_property
    def features(self) -> Array:
        """Features of the texts, [n, D]."""
        return text_features(self.samples.texts)

    @cached_property
    def entropies(self) -> Array:
        """Entropy of every sample's tokens, nats, [n]."""
        return entropies(self.samples.ids)
