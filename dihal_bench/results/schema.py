"""The fields of a record: types, ranges, and what must agree with what.

Records come from strangers and are drawn without further questions, so everything that a table, a
figure or a page reads is said here. What nobody reads may hold anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dihal_bench.results.fields import (
    AGREEMENT,
    CONVERGED,
    LOOSEST,
    TEACHER,
    Amount,
    Closed,
    Count,
    Digest,
    Line,
    Metric,
    Name,
    Open,
    Positive,
    Subject,
    Text,
    Time,
    Value,
    ordered,
)
from dihal_bench.results.metrics import DIFFUSION_GAIN, base_name
from dihal_bench.results.migrations import SCHEMA
from dihal_bench.results.schema_details import AuditFields, BridgeFields, LocateFields, TaskFields  # noqa: TC001 - of fields

KINDS = ("exact", "ensemble", "bound", "estimate")
RESCORED = ("sampled",)  # signals of scores that are likelihoods of the next token
UNGATED = ("generated",)  # signals of scores that are no likelihoods
_MOST_SCORES = 5000
_MOST_METRICS, _MOST_ROWS = 60, 200  # of a task


class BudgetConfigFields(Closed):
    """What a run may spend."""

    name: Line
    diffusion_tokens: Positive
    recovery_tokens: Positive
    matched: Literal["diffusion", "total"]


class ScoreConfigFields(Open):
    """How the run's own text is scored."""

    resamples: Annotated[int, Field(ge=100, le=10_000)]


class ConfigFields(Open):
    """The resolved configuration."""

    interface: Name
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    regime: Literal["causal", "sequence"]
    dtype: Subject
    corpus: Line
    budget: BudgetConfigFields
    score: ScoreConfigFields
    include: Annotated[list[Line], Field(max_length=1000)] = Field(default_factory=list)


class ArgumentFields(Open):
    """Of the interface."""

    block: Count


class InterfaceFields(Open):
    """What was benchmarked."""

    name: Name
    origin: Line
    args: ArgumentFields
    controls: Annotated[list[Name], Field(max_length=64)]
    start: Annotated[Count, Field(alias="from")]
    replaced: Positive


class SourceFields(Closed):
    """What a quantised teacher was unpacked from."""

    title: Annotated[Line, Field(min_length=1)]
    licence: Line | None
    notice: Line | None
    sha256: Line


class BackboneFields(Open):
    """The teacher."""

    name: Annotated[Line, Field(min_length=1)]
    fingerprint: Line
    blocks: Positive
    source: SourceFields | None = None


class CorpusFields(Open):
    """The text."""

    name: Annotated[Line, Field(min_length=1)]
    fingerprint: Line


class BudgetFields(Open):
    """The same budget, and whether it was kept."""

    name: Line
    diffusion_tokens: Positive
    recovery_tokens: Positive
    matched: str
    within: bool
    trunk: Amount


class SpentFields(Open):
    """One phase of one subject."""

    tokens: Count
    steps: Count
    flops: Amount
    seconds: Amount


class CostFields(Open):
    """Of inference."""

    trunk_parameters: Count
    recovery_parameters: Count
    other_parameters: Count
    steps: Count
    ratio: Amount


class RescoredFields(Open):
    """One row of the score table, computed anew from prefixes alone."""

    verdict: Literal["pass"]
    signal: Line
    steps: Count
    chains: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    places: Positive
    disagreement: Amount
    yardstick: Amount | None
    tolerance: Annotated[Amount, Field(le=AGREEMENT)]

    @model_validator(mode="after")
    def _passed(self) -> RescoredFields:
        if self.disagreement > self.tolerance:
            raise ValueError("its disagreement is larger than its tolerance")
        return self


class GateFields(Open):
    """A leak gate."""

    verdict: Literal["pass", "leak", "inconclusive"]
    future: Amount
    others: Amount
    effect: Amount
    tolerance: Amount
    tokens: Positive
    reach: Positive
    dtype: Literal["float64", "float32", "float16", "bfloat16"]
    version: Literal[1, 2] = 1  # 2: rows were scored anew
    rescored: list[RescoredFields] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> GateFields:
        if self.tolerance > LOOSEST[self.dtype]:
            raise ValueError(
                f"tolerance is {self.tolerance:g}, and in {self.dtype} it is at most "
                f"{LOOSEST[self.dtype]:g}"
            )
        if self.verdict == "pass" and max(self.future, self.others) > self.tolerance:
            raise ValueError("its numbers did not pass")
        return self

    def covers(self, signal: str, steps: int) -> bool:
        """Whether a row was scored anew, if that is a likelihood and its record is so new."""
        known = {(row.signal, row.steps) for row in self.rescored}
        return self.version == 1 or signal not in RESCORED or (signal, steps) in known


class GatesFields(Open):
    """All gates."""

    leak: dict[Subject, GateFields]
    seconds: Amount | None = None  # that all of them took


class EnvironmentFields(Open):
    """Where the run took place."""

    versions: dict[Line, Line]
    git: Line | None
    processor: Line = ""

    @model_validator(mode="after")
    def _names_itself(self) -> EnvironmentFields:
        if "dihal-bench" not in self.versions:
            raise ValueError("the version of dihal-bench is not among versions")
        return self


class _Details(Open):
    fooled_by: Annotated[list[Line], Field(max_length=1000)] = Field(default_factory=list)
    change_from_half: float | None = None
    converged: bool | None = None
    control: Name | None = None
    control_steps: Count | None = None

    @model_validator(mode="after")
    def _fits(self) -> _Details:
        change, said = self.change_from_half, self.converged
        if change is not None and said is not None and said != (change < CONVERGED):
            raise ValueError(f"converged is {said}, and change_from_half is {change:g}")
        return self


class ScoreFields(Closed):
    """One number; ``record.Score`` says what its fields are."""

    subject: Subject
    metric: Metric
    value: Value
    lo: Value | None
    hi: Value | None
    kind: str
    n: Count
    unit: Line
    task: Line
    regime: Literal["causal", "sequence"]
    version: int
    dtype: Subject
    steps: Count
    chains: Positive
    nfe: Count
    signal: Line
    details: _Details

    @property
    def name(self) -> tuple[Any, ...]:
        """What no other score of a record is; lm-eval gives one metric by several filters."""
        kept = getattr(self.details, "filter", None)
        row = (self.task, self.subject, self.steps, self.chains, self.signal)
        return *row, self.metric, repr(kept)

    @model_validator(mode="after")
    def _fits(self) -> ScoreFields:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, not one of {', '.join(KINDS)}")
        if not ordered(self.value, self.lo, self.hi):
            raise ValueError(f"value is {self.value:g}, outside of its own interval")
        if base_name(self.metric) == DIFFUSION_GAIN.key and self.details.control is None:
            raise ValueError("details name no control that the gain is over")
        return self


class Schema(Closed):
    """A record."""

    id: str
    seal: dict[str, str]
    run: str
    created: Time
    command: Text
    config: ConfigFields
    interface: InterfaceFields
    regime: Literal["causal", "sequence"]
    layer: Count
    layer_policy: Line
    backbone: BackboneFields
    corpus: CorpusFields
    budget: BudgetFields
    spent: dict[Subject, dict[Literal["diffusion", "recovery"], SpentFields]]
    locate: LocateFields
    bridge: BridgeFields
    costs: dict[Subject, CostFields]
    scores: Annotated[list[ScoreFields], Field(max_length=_MOST_SCORES)]
    sums: dict[str, Any]
    gates: GatesFields
    environment: EnvironmentFields
    code: dict[Line, Line] | None = None  # digests of the files that are not the package's own
    weights: dict[Subject, Digest]  # of each file; none where an earlier version trained
    # of runs that were scored further
    evaluated: EnvironmentFields | None = None  # where it was scored anew; environment: trained
    tasks: dict[Line, TaskFields] = Field(default_factory=dict)
    audits: dict[Line, AuditFields] = Field(default_factory=dict)
    schema_: Annotated[int, Field(alias="schema", ge=SCHEMA, le=SCHEMA)]

    @model_validator(mode="after")
    def _agrees(self) -> Schema:
        """What is said twice is the same."""
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
        for name, gate in self.gates.leak.items():
            if gate.dtype not in ("float64", self.config.dtype):
                raise ValueError(f"gates.leak.{name}.dtype is neither float64 nor that of config")
        return self

    @model_validator(mode="after")
    def _is_told_once(self) -> Schema:
        """Every score is of somebody who took part, on a text that is known, and stands once."""
        own, texts = f"{self.config.corpus}:validation", {*self.tasks}
        if own in texts:
            raise ValueError(f"tasks has the run's own text, {own}")
        known = {TEACHER, self.interface.name, *self.interface.controls}
        for name in self.weights.keys() - known:
            raise ValueError(f"weights has {name}, which is neither the interface nor a control")
        seen: set[tuple[Any, ...]] = set()
        for index, score in enumerate(self.scores):
            if score.task not in (own, *texts):
                raise ValueError(
                    f"scores[{index}].task is {score.task}, neither the run's own text nor in tasks"
                )
            gate, control = self.gates.leak.get(score.subject), score.details.control
            gated = score.subject != TEACHER and score.signal not in UNGATED
            if gated and (gate is None or gate.verdict != "pass"):
                raise ValueError(f"{score.subject} has a score but no passed leak gate")
            if gate and score.task == own and not gate.covers(score.signal, score.steps):
                raise ValueError(
                    f"{score.subject} has a score in {score.steps} steps, and its leak gate none"
                )
            if score.subject not in known or control not in (None, *self.interface.controls):
                raise ValueError(
                    f"scores[{index}] names one who is neither the interface nor a control"
                )
            if score.name in seen:
                raise ValueError(f"scores[{index}] is there twice: {score.metric} of one row")
            seen.add(score.name)
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
