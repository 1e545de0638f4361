"""The task of generation: text from the teacher, an interface and its controls, and its scores."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dihal_bench.errors import UserError
from dihal_bench.files import atomic_path
from dihal_bench.records import Score
from dihal_bench.scoring.bench import Bench, Outcome, Source
from dihal_bench.scoring.generation import Choice
from dihal_bench.scoring.likelihood import TEACHER
from dihal_bench.scoring.samples import frontier
from dihal_bench.scoring.samples.audit import Impostor, Verdict, impostors, verdicts
from dihal_bench.scoring.samples.compat import COMPAT, compat_perplexity
from dihal_bench.scoring.samples.judge import Judge
from dihal_bench.scoring.samples.measure import METRICS, VERSION, Measure, Settings, Yardstick
from dihal_bench.scoring.samples.texts import Drawing, Samples, beginnings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dihal_bench.backbone.model import Backbone

GENERATED = "generated"  # the signal of scores of samples
_TRAINING = 1 << 23  # tokens that the naive samplers count
_LEAST = 4  # real texts


@dataclass(frozen=True, kw_only=True)
class SampleTask:
    """What is generated, and how it is scored.

    Attributes:
        name: of the task.
        count: samples of every row.
        tokens: of a sample, at most.
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
        for name, least in (("count", 1), ("tokens", 1), ("prefix", 0), ("batch", 1), ("seed", 0)):
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
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise UserError(
                f"task {self.name}: there is no metric {unknown[0]} of samples; those are "
                f"{', '.join(METRICS)}."
            )

    @property
    def choice(self) -> Choice:
        """How tokens are drawn."""
        return Choice(temperature=self.temperature, top_p=self.top_p, seed=self.seed)

    @property
    def gated(self) -> bool:
        """No likelihood is given."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return what its scores depend on."""
        plain = asdict(self)
        plain.pop("batch")
        return {**plain, "scorer": VERSION}

    def perform(self, bench: Bench) -> Outcome:
        """Write and score; see ``Task``."""
        written = _write(self, bench)
        files: dict[str, Callable[[Path], object]] = {
            f"{self.name}-{subject}-S{steps}.jsonl": partial(_keep, samples)
            for (subject, steps), samples in written.samples.items()
        }
        if written.points:
            data = written.data["entropy"].value, written.data["gen_ppl"].value
            files[f"{self.name}-frontier"] = partial(
                frontier.draw, written.points, data, title=self.name
            )
        return Outcome(written.scores, written.audit(), files)


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
    """

    scores: list[Score]
    samples: dict[tuple[str, int], Samples]
    data: Mapping[str, Measure]
    rows: list[Impostor]
    verdicts: dict[str, Verdict]
    points: list[frontier.Point]

    def audit(self) -> dict[str, Any]:
        """Return what a record keeps of the audit, the data and the frontier."""
        return {
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


def _write(task: SampleTask, bench: Bench) -> Written:
    """Draw samples of every source, and score them."""
    teacher, sources = bench.teacher, bench.sources
    if task.prefix + task.tokens > bench.window:
        bench.say(
            f"task {task.name}: its {task.prefix + task.tokens} tokens exceed the {bench.window} "
            "that interfaces of this run were trained on"
        )
    judge = Judge.load(task.judge, teacher)
    real = beginnings(
        bench.validation,
        teacher.tokenizer,
        tokens=task.tokens,
        count=2 * task.count,
        prefix=task.prefix,
    )
    if len(real) < _LEAST:
        raise UserError(
            f"task {task.name}: {len(real)} validation documents have more than {task.prefix} "
            "tokens, and real text is needed beside the samples; give a corpus of more documents."
        )
    known, held_out = real.part(range(0, len(real), 2)), real.part(range(1, len(real), 2))
    yard = Yardstick(judge, known, bench.training, task.settings)
    prompts = _prompts(held_out, task)
    samples: dict[tuple[str, int], Samples] = {}
    measures: dict[tuple[str, int], dict[str, Measure]] = {}
    for source in sources:
        bench.say(f"samples: {_row(source)}")
        drawn = _drawing(task, source.steps).draw(source.writer, prompts)
        samples[source.subject, source.steps] = drawn
        measures[source.subject, source.steps] = yard.measure(drawn) | _compat(
            task, drawn, teacher, judge
        )
    data = yard.measure(held_out) | _compat(task, held_out, teacher, judge)
    rows: list[Impostor] = []
    said: dict[str, Verdict] = {}
    if task.audit:
        rows = impostors(
            yard,
            bench.training.stream(_TRAINING),
            teacher.tokenizer,
            count=task.count,
            tokens=task.tokens,
            seed=task.seed,
        )
        said = verdicts(rows, measures[TEACHER, 1], data)
    scores = [
        score for source in sources for score in _scores(task, source, measures, said, judge, bench)
    ]
    points = [
        point for source in sources for point in _frontier(task, source, yard, prompts, measures)
    ]
    return Written(scores, samples, data, rows, said, points)


def _row(source: Source) -> str:
    return source.subject + (f" S={source.steps}" if source.traits else "")


def _compat(
    task: SampleTask, samples: Samples, teacher: Backbone, judge: Judge
) -> dict[str, Measure]:
    """Return somebody else's generative perplexity, of texts with their special tokens."""
    if not task.compat:
        return {}
    texts = teacher.tokenizer.batch_decode(samples.ids)
    value = compat_perplexity(task.compat, judge, texts)
    own = Measure(value=value, lo=value, hi=value, unit=f"as {task.compat}", n=len(texts))
    return {f"gen_ppl_{task.compat}": own}


def _keep(samples: Samples, path: Path) -> None:
    """Write samples as JSON lines."""
    lines = [
        json.dumps({"prompt": prompt, "text": text, **samples.about}, ensure_ascii=False)
        for prompt, text in zip(samples.prompts, samples.texts, strict=True)
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _prompts(real: Samples, task: SampleTask) -> list[list[int]]:
    """Return one prompt per sample: those of real text, again from the start if they run out."""
    return [real.given[i % len(real)] for i in range(task.count)]


def _drawing(task: SampleTask, steps: int, temperature: float | None = None) -> Drawing:
    choice = task.choice
    if temperature is not None:
        choice = replace(choice, temperature=temperature)
    return Drawing(
        tokens=task.tokens, choice=choice, steps=steps, chains=task.chains, batch=task.batch
    )


def _scores(
    task: SampleTask,
    source: Source,
    measures: Mapping[tuple[str, int], Mapping[str, Measure]],
    said: Mapping[str, Verdict],
    judge: Judge,
    bench: Bench,
) -> list[Score]:
    chains = task.chains if source.stochastic else 1
    about = {
        "temperature": task.temperature,
        "top_p": task.top_p,
        "samples": task.count,
        "tokens": task.tokens,
        "prefix": task.prefix,
        "judge": judge.model.name,
        "judge_fingerprint": judge.model.info.fingerprint,
    }
    found = measures[source.subject, source.steps]
    return [
        Score(
            subject=source.subject,
            metric=name,
            value=own.value,
            lo=own.lo,
            hi=own.hi,
            kind="estimate",
            n=own.n,
            unit=own.unit,
            task=task.name,
            regime=bench.regime,
            version=VERSION,
            dtype=bench.dtype,
            steps=source.steps,
            chains=chains,
            nfe=source.evaluations * chains,
            signal=GENERATED,
            details=own.details
            | about
            | ({"fooled_by": list(said[name].fooled)} if name in said else {}),
        )
        for name, own in found.items()
        if not task.metrics or name in task.metrics
    ]


def _frontier(
    task: SampleTask,
    source: Source,
    yard: Yardstick,
    prompts: list[list[int]],
    measures: Mapping[tuple[str, int], Mapping[str, Measure]],
) -> list[frontier.Point]:
    points = []
    for temperature in task.temperatures:
        if temperature == task.temperature:
            found: Mapping[str, Measure] = measures[source.subject, source.steps]
        else:
            drawing = _drawing(task, source.steps, temperature)
            label = f"frontier {source.subject} {temperature:g}"
            drawn = drawing.draw(source.writer, prompts, label=label)
            found = yard.measure(drawn, only=("entropy", "gen_ppl"))
        if {"entropy", "gen_ppl"} <= found.keys():
            points.append(
                frontier.Point(
                    _row(source), temperature, found["entropy"].value, found["gen_ppl"].value
                )
            )
    return points
