"""The fields of a record: types, ranges, and what must agree with what.

Records come from strangers and are drawn without further questions, so everything that a table, a
figure or a page reads is said here. What nobody reads may hold anything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from dihal_bench.names import PLAIN

SCHEMA = 3
KINDS = ("exact", "ensemble", "bound", "estimate")
UNGATED = ("generated",)  # signals of scores that are no likelihoods
_TEACHER = "teacher"
_MOST_SCORES = 5000
_MOST_METRICS, _MOST_ROWS = 60, 200  # of a task
_MOST_POINTS = 100_000

_Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*\z", max_length=300)]
_Text = Annotated[str, StringConstraints(max_length=20_000)]
_Identifier = StringConstraints(pattern=rf"^{PLAIN}\z", max_length=100)
Subject = Annotated[str, _Identifier]
_Metric = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.,@:/+ -]*\z", max_length=64)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Positive = Annotated[int, Field(ge=1, lt=2**63)]
_Amount = Annotated[float, Field(ge=0)]


def _not_teacher(name: str) -> str:
    if name == _TEACHER:
        raise ValueError("that is the backbone itself")
    return name


def _is_time(text: str) -> str:
    """Take a time in ISO 8601, with its zone."""
    try:
        known = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        raise ValueError(
            f"{text[:40]!r} is no time in ISO 8601 with its zone, such as 2026-01-31T12:00:00+00:00"
        )
    return text


_Time = Annotated[_Line, AfterValidator(_is_time)]
_Name = Annotated[Subject, AfterValidator(_not_teacher)]


class _Open(BaseModel):
    """Fields that are read, among others."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Closed(_Open):
    """Fields that are read, and no others."""

    model_config = ConfigDict(extra="forbid")


class BudgetConfig(_Closed):
    """What a run may spend."""

    name: _Line
    diffusion_tokens: _Positive
    recovery_tokens: _Positive
    matched: Literal["diffusion", "total"]


class ScoreConfig(_Open):
    """How the run's own text is scored."""

    resamples: Annotated[int, Field(ge=100, le=10_000)]


class Config(_Open):
    """The resolved configuration."""

    interface: _Name
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    regime: Literal["causal", "sequence"]
    dtype: Subject
    corpus: _Line
    budget: BudgetConfig
    score: ScoreConfig


class Arguments(_Open):
    """Of the interface."""

    block: _Count


class Interface(_Open):
    """What was benchmarked."""

    name: _Name
    origin: _Line
    args: Arguments
    controls: Annotated[list[_Name], Field(max_length=64)]
    start: Annotated[_Count, Field(alias="from")]
    replaced: _Positive


class Backbone(_Open):
    """The teacher."""

    name: Annotated[_Line, Field(min_length=1)]
    fingerprint: _Line
    blocks: _Positive


class Corpus(_Open):
    """The text."""

    name: Annotated[_Line, Field(min_length=1)]
    fingerprint: _Line


class Budget(_Open):
    """The same budget, and whether it was kept."""

    name: _Line
    diffusion_tokens: _Positive
    recovery_tokens: _Positive
    matched: str
    within: bool
    trunk: _Amount


class Spent(_Open):
    """One phase of one subject."""

    tokens: _Count
    steps: _Count
    flops: _Amount
    seconds: _Amount


class Cost(_Open):
    """Of inference."""

    trunk_parameters: _Count
    recovery_parameters: _Count
    other_parameters: _Count
    steps: _Count
    ratio: _Amount


class Gate(_Open):
    """A leak gate."""

    verdict: Literal["pass", "leak", "inconclusive"]
    future: _Amount
    others: _Amount
    effect: _Amount
    tolerance: _Amount

    @model_validator(mode="after")
    def _fits(self) -> Gate:
        if self.verdict == "pass" and max(self.future, self.others) > self.tolerance:
            raise ValueError("its numbers did not pass")
        return self


class Gates(_Open):
    """All gates."""

    leak: dict[Subject, Gate]


class Environment(_Open):
    """Where the run took place."""

    versions: dict[_Line, _Line]
    git: _Line | None

    @model_validator(mode="after")
    def _names_itself(self) -> Environment:
        if "dihal-bench" not in self.versions:
            raise ValueError("the version of dihal-bench is not among versions")
        return self


class _Interval(_Open):
    value: float
    lo: float
    hi: float


class _Layer(_Open):
    layer: _Positive
    curvature: _Interval
    stiffness: _Interval
    effective_rank: _Interval
    score: _Interval


class _Cell(_Open):
    layers: Annotated[list[_Layer], Field(max_length=1000)]


class Locate(_Open):
    """What was found of the layers; nothing where none was looked for."""

    cells: dict[_Line, _Cell] = Field(default_factory=dict)


class _Oracle(_Open):
    agreement: float | None
    kl: float | None
    sigma_half: float | None
    sigmas: Annotated[list[float], Field(max_length=1000)]
    agreement_under_noise: Annotated[list[float], Field(max_length=1000)]

    @model_validator(mode="after")
    def _fits(self) -> _Oracle:
        if len(self.sigmas) != len(self.agreement_under_noise):
            raise ValueError("sigmas and agreement_under_noise are of different lengths")
        return self


class _Progress(_Open):
    subject: Subject
    steps: _Count
    share: _Amount
    brier1: float


class Bridge(_Open):
    """Reconstruction, recovery, and the course of training."""

    curves: dict[Subject, dict[_Line, Annotated[list[Any], Field(max_length=_MOST_POINTS)]]]
    oracle: _Oracle
    progress: Annotated[list[_Progress], Field(max_length=1000)]


class _Task(_Open):
    key: _Line
    rows: list[Any]


class _Excerpt(_Open):
    prompt: _Text
    real: _Text
    rows: dict[_Line, _Text]


class _Point(_Open):
    row: _Line
    temperature: _Amount
    entropy: float
    gen_ppl: _Amount


class _Measured(_Open):
    value: float
    lo: float | None
    hi: float | None
    n: _Count


class _Impostor(_Open):
    name: _Line
    published: bool
    measures: Annotated[dict[_Metric, _Measured], Field(max_length=100)]


class _Audit(_Open):
    data: Annotated[dict[_Metric, _Measured], Field(max_length=100)] = Field(default_factory=dict)
    impostors: Annotated[list[_Impostor], Field(max_length=1000)] = Field(default_factory=list)
    excerpts: Annotated[list[_Excerpt], Field(max_length=100)] = Field(default_factory=list)
    frontier: Annotated[list[_Point], Field(max_length=1000)] = Field(default_factory=list)


class _Details(_Open):
    fooled_by: Annotated[list[_Line], Field(max_length=1000)] = Field(default_factory=list)


class Score(_Closed):
    """One number; ``records.Score`` says what its fields are."""

    subject: Subject
    metric: _Metric
    value: float
    lo: float | None
    hi: float | None
    kind: str
    n: _Count
    unit: _Line
    task: _Line
    regime: Literal["causal", "sequence"]
    version: int
    dtype: Subject
    steps: _Count
    chains: _Positive
    nfe: _Count
    signal: _Line
    details: _Details

    @model_validator(mode="after")
    def _known_kind(self) -> Score:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, not one of {', '.join(KINDS)}")
        return self


class Schema(_Closed):
    """A record."""

    id: str
    seal: dict[str, str]
    run: str
    created: _Time
    command: _Text
    config: Config
    interface: Interface
    regime: Literal["causal", "sequence"]
    layer: _Count
    layer_policy: _Line
    backbone: Backbone
    corpus: Corpus
    budget: Budget
    spent: dict[Subject, dict[Literal["diffusion", "recovery"], Spent]]
    locate: Locate
    bridge: Bridge
    costs: dict[Subject, Cost]
    scores: Annotated[list[Score], Field(max_length=_MOST_SCORES)]
    sums: dict[str, Any]
    gates: Gates
    environment: Environment
    # of runs that were scored further
    tasks: dict[_Line, _Task] = Field(default_factory=dict)
    audits: dict[_Line, _Audit] = Field(default_factory=dict)
    schema_: Annotated[int, Field(alias="schema")]

    @model_validator(mode="after")
    def _agrees(self) -> Schema:
        """What is said twice is the same, and no likelihood stands without its gate."""
        own = self.interface
        if own.replaced != self.layer - own.start or self.layer > self.backbone.blocks:
            raise ValueError(
                f"interface.replaced is {own.replaced}, from block {own.start} to layer "
                f"{self.layer} of {self.backbone.blocks}"
            )
        if self.config.interface != own.name or self.config.regime != self.regime:
            raise ValueError("config is of another interface or regime")
        for name in ("diffusion_tokens", "recovery_tokens", "matched"):
            if getattr(self.budget, name) != getattr(self.config.budget, name):
                raise ValueError(f"budget.{name} is not that of config")
        rows = [row for row in self.sums.get("rows") or () if isinstance(row, dict)]
        scored = {s.subject for s in self.scores if s.signal not in UNGATED}
        summed = {str(row.get("subject")) for row in rows}
        known = {(s.subject, s.steps, s.signal) for s in self.scores if s.task not in self.tasks}
        for row in rows:
            if (row.get("subject"), row.get("steps"), row.get("signal")) not in known:
                raise ValueError(f"sums has a row of {row.get('subject')} that no score is of")
        for subject in sorted(scored | summed):
            gate = self.gates.leak.get(subject)
            if subject != _TEACHER and (gate is None or gate.verdict != "pass"):
                raise ValueError(f"{subject} has a score but no passed leak gate")
        return self

    @model_validator(mode="after")
    def _is_of_a_size(self) -> Schema:
        """Tables of scores are as wide as there are metrics, and as long as there are rows."""
        shapes: dict[str, tuple[set[str], set[Any]]] = {}
        for score in self.scores:
            metrics, rows = shapes.setdefault(score.task, (set(), set()))
            metrics.add(score.metric)
            rows.add((score.subject, score.steps, score.chains, score.signal))
        for task, (metrics, rows) in shapes.items():
            if len(metrics) > _MOST_METRICS or len(rows) > _MOST_ROWS:
                raise ValueError(
                    f"task {task} has {len(metrics)} metrics of {len(rows)} rows; at most "
                    f"{_MOST_METRICS} and {_MOST_ROWS} are shown"
                )
        return self
