"""Where a task of generation is worked on: drawing, measuring, sweeping, scoring."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.context import EvalContext, System
from dihal_bench.evaluation.generation import Choice
from dihal_bench.evaluation.intervals import DocumentBootstrap
from dihal_bench.evaluation.likelihood import TEACHER
from dihal_bench.evaluation.samples import frontier
from dihal_bench.evaluation.samples.compat import compat_perplexity
from dihal_bench.evaluation.samples.metrics import measure
from dihal_bench.evaluation.samples.sampling import Drawing, Samples
from dihal_bench.evaluation.samples.settings import VERSION, Measure, SampleMetricContext
from dihal_bench.results.metrics import ENTROPY, GEN_PPL, GEN_PPL_AT_ENTROPY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.evaluation.samples.adversarial_baselines import Verdict
    from dihal_bench.evaluation.samples.plan import SamplePlan
    from dihal_bench.results.record import Score

GENERATED = "generated"  # the signal of scores of samples


def row_name(source: System) -> str:
    """Return what a row is called."""
    return source.subject + (f" S={source.steps}" if source.traits else "")


@dataclass
class SampleSession:
    """Where one task is worked on.

    Attributes:
        task: what is wanted.
        bench: who writes, and about what.
        yard: what samples are measured with.
        prompts: one per sample.
    """

    task: SamplePlan
    bench: EvalContext
    yard: SampleMetricContext
    prompts: list[list[int]]
    _told: set[str] = field(default_factory=set)

    def draw(self, source: System, choice: Choice, label: str = "generate") -> Samples:
        """Return one sample per prompt, all of one length."""
        return self._drawing(source, choice).draw(source.writer, self.prompts, label=label)

    def continued(self, source: System, prompts: list[list[int]], tokens: int) -> Samples:
        """Return what the task's choice of tokens makes of other prompts, in so many tokens."""
        drawing = replace(self._drawing(source, self.task.choice), tokens=tokens)
        return drawing.draw(source.writer, prompts, label="excerpts")

    def _drawing(self, source: System, choice: Choice) -> Drawing:
        task = self.task
        return Drawing(
            tokens=task.tokens,
            choice=choice,
            ends=False,
            steps=source.steps,
            chains=task.chains,
            batch=task.batch,
        )

    def measure(self, samples: Samples) -> dict[str, Measure]:
        """Return all metrics; what cannot be given is said once, or refused if it was asked for.

        Raises:
            UserError: a metric that the task names cannot be given.
        """
        found, missing = measure(self.yard.subject(samples))
        for name, reason in missing.items():
            if name in self.task.metrics:
                raise UserError(f"task {self.task.name}: {name} cannot be given: {reason}")
            if name not in self._told:
                self.bench.say(f"task {self.task.name}: no {name}: {reason}")
            self._told.add(name)
        return found | self._compat(samples)

    def plain_teacher(self, own: dict[str, Measure]) -> dict[str, Measure]:
        """Return measures of the teacher at temperature 1, with every token: an audit's bar."""
        plain = Choice(seed=self.task.seed)
        if self.task.choice == plain:
            return own
        source = System(TEACHER, self.bench.teacher)
        return self.measure(self.draw(source, plain, "teacher at temperature 1"))

    def sweep(self, source: System, drawn: Samples) -> list[frontier.Swept]:
        """Return the row's samples at every temperature of the task."""
        found = []
        for temperature in self.task.temperatures:
            samples = drawn
            if temperature != self.task.temperature:
                choice = replace(self.task.choice, temperature=temperature)
                samples = self.draw(source, choice, f"frontier {row_name(source)} {temperature:g}")
            own = self.yard.subject(samples)
            if own.judged.tokens.sum():
                found.append(
                    frontier.Swept(temperature, own.entropies, own.judged.nll, own.judged.tokens)
                )
        return found

    def at_entropy(self, sweep: list[frontier.Swept], entropy: float) -> dict[str, Measure]:
        """Return the row's generative perplexity at real text's entropy, if its range has it."""
        settings = self.task.settings
        bootstrap = DocumentBootstrap(
            len(self.prompts), resamples=settings.resamples, seed=settings.seed
        )
        found = frontier.at_entropy(sweep, entropy, bootstrap) if sweep else None
        if found is None:
            return {}
        details = {ENTROPY.key: entropy, "temperatures": list(self.task.temperatures)}
        own = Measure(
            value=found.value,
            lo=found.lo,
            hi=found.hi,
            n=len(self.prompts),
            details=details,
            unit=GEN_PPL_AT_ENTROPY.unit,
        )
        return {GEN_PPL_AT_ENTROPY.key: own}

    def scores(
        self, source: System, found: Mapping[str, Measure], said: Mapping[str, Verdict]
    ) -> list[Score]:
        """Return a row's scores; a generative perplexity never goes without the entropy."""
        task = self.task
        model = self.yard.judge.model
        about = {
            "temperature": task.temperature,
            "top_p": task.top_p,
            "samples": task.count,
            "tokens": task.tokens,
            "prefix": task.prefix,
            "judge": model.name,
            "judge_fingerprint": model.info.fingerprint,
        }
        kept = {*task.metrics, ENTROPY.key, GEN_PPL_AT_ENTROPY.key, f"{GEN_PPL.key}_{task.compat}"}
        return [
            self.bench.score(
                source,
                task.name,
                chains=task.chains,
                signal=GENERATED,
                metric=name,
                value=own.value,
                lo=own.lo,
                hi=own.hi,
                kind="estimate",
                n=own.n,
                unit=own.unit,
                version=VERSION,
                details=own.details
                | about
                | ({"fooled_by": list(said[name].fooled)} if name in said else {}),
            )
            for name, own in found.items()
            if not task.metrics or name in kept
        ]

    def _compat(self, samples: Samples) -> dict[str, Measure]:
        """Return somebody else's generative perplexity, of texts with their special tokens."""
        mode = self.task.compat
        if not mode:
            return {}
        texts = self.bench.teacher.tokenizer.batch_decode(samples.ids)
        value = compat_perplexity(mode, self.yard.judge, texts, length=self.task.tokens)
        own = Measure(value=value, lo=None, hi=None, unit=f"as {mode}", n=len(texts))
        return {f"{GEN_PPL.key}_{mode}": own}
