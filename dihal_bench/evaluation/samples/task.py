"""The task of generation: text from the teacher, an interface and its controls, and its scores."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import atomic_path
from dihal_bench.evaluation.context import EvalContext, TaskResult
from dihal_bench.evaluation.likelihood import TEACHER
from dihal_bench.evaluation.samples import frontier
from dihal_bench.evaluation.samples.adversarial_baselines import (
    NaiveSampler,
    Verdict,
    at_entropy,
    naive_samplers,
    verdicts,
)
from dihal_bench.evaluation.samples.judge import Judge
from dihal_bench.evaluation.samples.plan import SamplePlan
from dihal_bench.evaluation.samples.sampling import Samples, beginnings
from dihal_bench.evaluation.samples.session import SampleSession, row_name
from dihal_bench.evaluation.samples.settings import LEAST, VERSION, Measure, SampleMetricContext
from dihal_bench.results.metrics import ENTROPY, GEN_PPL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dihal_bench.config.schema import ScoreConfig
    from dihal_bench.results.record import Score


_TRAINING = 1 << 23  # tokens that the naive samplers count
_EXCERPTS, _PROMPT = 4, 16  # prompts shown to a reader, and tokens of each


@dataclass(frozen=True, kw_only=True)
class SampleTask(SamplePlan):
    """Text from the teacher, an interface and its controls, and its scores; see ``SamplePlan``."""

    @property
    def gated(self) -> bool:
        """No likelihood is given."""
        return False

    @property
    def generates(self) -> bool:
        """All of it is generated."""
        return True

    @property
    def joint(self) -> bool:
        """Rows have samples of their own."""
        return False

    def ensemble(self, config: ScoreConfig) -> int:
        """Its own setting."""
        del config
        return self.chains

    def to_dict(self) -> dict[str, Any]:
        """Return what its scores depend on."""
        plain = asdict(self)
        plain.pop("batch")
        return {**plain, "judge": _judge_key(self.judge), "scorer": VERSION}

    def perform(self, bench: EvalContext) -> TaskResult:
        """Write and score; see ``Task``."""
        written = _write(self, bench)
        files: dict[str, Callable[[Path], object]] = {
            f"{self.name}-{subject}-S{steps}.jsonl": partial(_keep, samples)
            for (subject, steps), samples in written.samples.items()
        }
        if written.points:
            data = written.data[ENTROPY.key].value, written.data[GEN_PPL.key].value
            files[f"{self.name}-frontier"] = partial(
                frontier.draw, written.points, data, title=self.name
            )
        return TaskResult(written.scores, written.audit(), files)


@dataclass
class Written:
    """What came of a task.

    Attributes:
        scores: of the teacher, the interface and its controls.
        samples: by subject and steps.
        data: measures of real text that the distances do not know.
        rows: impostors, if there is an audit.
        verdicts: of the audit.
        points: of the frontier.
        excerpts: some prompts, with what every source makes of them.
    """

    scores: list[Score]
    samples: dict[tuple[str, int], Samples]
    data: Mapping[str, Measure]
    rows: list[NaiveSampler]
    verdicts: dict[str, Verdict]
    points: list[frontier.Point]
    excerpts: list[dict[str, Any]]

    def audit(self) -> dict[str, Any]:
        """Return what a record keeps of the audit, the data, the frontier and the texts."""
        return {
            "excerpts": self.excerpts,
            "data": {name: asdict(own) for name, own in self.data.items()},
            "impostors": [
                {
                    "name": row.name,
                    "kind": row.kind,
                    "published": row.published,
                    "measures": {name: asdict(own) for name, own in row.measures.items()},
                }
                for row in self.rows
            ],
            "verdicts": {name: asdict(own) for name, own in self.verdicts.items()},
            "frontier": [asdict(point) for point in self.points],
        }


def _write(task: SampleTask, bench: EvalContext) -> Written:
    """Draw samples of every source, and score them."""
    if task.prefix + task.tokens > bench.window:
        bench.say(
            f"task {task.name}: its {task.prefix + task.tokens} tokens exceed the {bench.window} "
            "that interfaces of this run were trained on"
        )
    teacher = bench.teacher
    judge = Judge.load(task.judge, teacher)
    known, held_out = _real(task, bench)
    if task.prefix and len(held_out) < task.count:
        bench.say(f"task {task.name}: one sample of each of {len(held_out)} prompts")
        task = replace(task, count=len(held_out))
    size = min(task.count, len(held_out))
    yard = SampleMetricContext(judge, known, bench.trained_on, task.settings, size=size)
    desk = SampleSession(
        task, bench, yard, [held_out.given[i % len(held_out)] for i in range(task.count)]
    )
    samples, measures = {}, {}
    for source in bench.sources:
        bench.say(f"samples: {row_name(source)}")
        drawn = desk.draw(source, task.choice)
        samples[source.subject, source.steps] = drawn
        measures[source.subject, source.steps] = desk.measure(drawn)
    data = desk.measure(held_out)
    rows: list[NaiveSampler] = []
    said: dict[str, Verdict] = {}
    if task.audit:
        rows = naive_samplers(
            yard,
            bench.trained_on[0].stream(_TRAINING),
            teacher.tokenizer,
            desk.prompts,
            tokens=task.tokens,
            seed=task.seed,
        )
        said = verdicts(rows, desk.plain_teacher(measures[TEACHER, 1]), data)
    sweeps = [desk.sweep(own, samples[own.subject, own.steps]) for own in bench.sources]
    points = [
        own.point(row_name(source))
        for source, sweep in zip(bench.sources, sweeps, strict=True)
        for own in sorted(sweep, key=lambda own: own.temperature)
    ]
    if task.audit:
        said |= at_entropy(rows, [own for own in points if own.row == TEACHER])
    scores = []
    for source, sweep in zip(bench.sources, sweeps, strict=True):
        found = measures[source.subject, source.steps]
        found = found | desk.at_entropy(sweep, data[ENTROPY.key].value)
        scores += desk.scores(source, found, said)
    return Written(scores, samples, data, rows, said, points, _excerpts(desk, held_out))


def _excerpts(desk: SampleSession, real: Samples) -> list[dict[str, Any]]:
    """Return what every source makes of the same prompts, beginnings of real text, for a reader.

    No score is of these, so that it does not matter how many of them there are.
    """
    length = min(_PROMPT, desk.task.tokens // 2)
    if not length:
        return []
    some = real.part(range(min(_EXCERPTS, len(real))))
    prompts = [given + ids[:length] for given, ids in zip(some.given, some.ids, strict=True)]
    drawn = {
        row_name(source): desk.continued(source, prompts, desk.task.tokens - length)
        for source in desk.bench.sources
    }
    first = next(iter(drawn.values()))
    return [
        {
            "prompt": first.prompts[i],
            "real": (some.prompts[i] + some.texts[i])[len(first.prompts[i]) :],
            "rows": {name: samples.texts[i] for name, samples in drawn.items()},
        }
        for i in range(len(some))
    ]


def _real(task: SampleTask, bench: EvalContext) -> tuple[Samples, Samples]:
    """Return real text: what distances are measured to, and what stands beside the samples."""
    real = beginnings(
        bench.validation,
        bench.teacher.tokenizer,
        tokens=task.tokens,
        count=2 * task.count,
        prefix=task.prefix,
    )
    if len(real) < 2 * LEAST:
        raise UserError(
            f"task {task.name}: {len(real)} validation documents have {task.prefix + task.tokens} "
            f"tokens, and {2 * LEAST} are needed beside the samples; give a corpus of more or "
            "longer documents, or ask for fewer tokens."
        )
    if len(real) < 2 * task.count:
        bench.say(
            f"task {task.name}: {len(real)} validation documents have {task.prefix + task.tokens} "
            f"tokens, so that {task.count} samples stand beside {len(real) // 2}"
        )
    return real.part(range(0, len(real), 2)), real.part(range(1, len(real), 2))


def _keep(samples: Samples, path: Path) -> None:
    """Write samples as JSON lines."""
    lines = [
        json.dumps({"prompt": prompt, "text": text, **samples.about}, ensure_ascii=False)
        for prompt, text in zip(samples.prompts, samples.texts, strict=True)
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _judge_key(name: str) -> Any:
    """Return what tells a judge from another of the same name, without loading it."""
    path = Path(name)
    if not path.is_dir():
        return name
    return [name, *sorted([f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in path.iterdir())]
