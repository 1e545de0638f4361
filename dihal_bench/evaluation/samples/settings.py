"""What sets of samples are measured with, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.generation import Choice
from dihal_bench.evaluation.samples.compat import COMPAT
from dihal_bench.evaluation.samples.diversity import Seen, entropies
from dihal_bench.evaluation.samples.features import text_features
from dihal_bench.evaluation.samples.metrics import measures

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


@dataclass(frozen=True, kw_only=True)
class SamplePlan:
    """What is generated, and how it is scored.

    Attributes:
        name: of the task.
        count: samples of every row.
        tokens: of a sample: all are of one length, so that they can be compared.
        prefix: tokens of a real document that every sample continues; 0: whole documents.
        temperature: of the tokens.
        top_p: nucleus.
        chains: whose mean is drawn from.
        seed: of everything that is drawn.
        judge: "bundled-judge", a folder, or a hub id.
        audit: whether rows without a model are measured as well.
        temperatures: of the frontier; none: it is not drawn.
        batch: samples at a time; nothing depends on it.
        metrics: names of what is measured; empty: everything.
        compat: whose definition of generative perplexity is given besides; empty: nobody's.
        settings: of the metrics.
        version: of the task.
    """

    name: str
    count: int = 256
    tokens: int = 128
    prefix: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    chains: int = 1
    seed: int = 0
    judge: str = "bundled-judge"
    audit: bool = True
    temperatures: tuple[float, ...] = ()
    batch: int = 64
    metrics: tuple[str, ...] = ()
    compat: str = ""
    settings: Settings = field(default_factory=Settings)
    version: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (
            ("count", LEAST),
            ("tokens", 1),
            ("prefix", 0),
            ("batch", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise UserError(
                    f"task {self.name}: {name}={getattr(self, name)} must be {least} or more."
                )
        for temperature in (self.temperature, *self.temperatures):
            replace(self.choice, temperature=temperature)  # says what is out of range
        if self.compat and self.compat not in COMPAT:
            raise UserError(
                f"--compat {self.compat} is unknown; choose one of {', '.join(COMPAT)}."
            )
        known = measures()
        unknown = [name for name in self.metrics if name not in known]
        if unknown:
            raise UserError(
                f"task {self.name}: there is no metric {unknown[0]} of samples; those are "
                f"{', '.join(known)}."
            )

    @property
    def choice(self) -> Choice:
        """How tokens are drawn."""
        return Choice(temperature=self.temperature, top_p=self.top_p, seed=self.seed)
