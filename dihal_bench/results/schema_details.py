"""The fields of a record for what was found besides scores: layers, recovery, generated text."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from dihal_bench.results.fields import (
    Amount,
    Brier,
    Count,
    Line,
    Metric,
    Open,
    Positive,
    Real,
    Share,
    Subject,
    Text,
    Value,
    ordered,
)

_MOST_POINTS = 100_000
_MOST_ENTROPY = 1000.0  # nats: of more tokens than there are
_MOST_PERPLEXITY = 1e300  # on a logarithmic axis

_Sigma = Annotated[float, Field(gt=0, le=1e30)]  # on a logarithmic axis


class _Interval(Open):
    value: Real
    lo: Real
    hi: Real

    @model_validator(mode="after")
    def _fits(self) -> _Interval:
        if self.lo > self.hi:  # of subsamples: it need not hold the value
            raise ValueError(f"lo is {self.lo:g}, above hi, which is {self.hi:g}")
        return self


class _Layer(Open):
    layer: Positive
    curvature: _Interval
    stiffness: _Interval
    effective_rank: _Interval
    score: _Interval


class _Cell(Open):
    layers: Annotated[list[_Layer], Field(max_length=1000)]


class LocateFields(Open):
    """What was found of the layers; nothing where none was looked for."""

    cells: dict[Line, _Cell] = Field(default_factory=dict)


class _Oracle(Open):
    agreement: Share | None
    kl: Real | None
    sigma_half: _Sigma | None
    sigmas: Annotated[list[_Sigma], Field(max_length=1000)]
    agreement_under_noise: Annotated[list[Share], Field(max_length=1000)]

    @model_validator(mode="after")
    def _fits(self) -> _Oracle:
        if len(self.sigmas) != len(self.agreement_under_noise):
            raise ValueError("sigmas and agreement_under_noise are of different lengths")
        return self


class _Progress(Open):
    subject: Subject
    steps: Count
    share: Share
    brier1: Brier


class BridgeFields(Open):
    """Reconstruction, recovery, and the course of training."""

    curves: dict[Subject, dict[Line, Annotated[list[Any], Field(max_length=_MOST_POINTS)]]]
    oracle: _Oracle
    progress: Annotated[list[_Progress], Field(max_length=1000)]


class TaskFields(Open):
    """How a run was scored on something else than its own text, and which rows."""

    key: Line
    rows: list[Any]


class _Excerpt(Open):
    prompt: Text
    real: Text
    rows: dict[Line, Text]


class _Point(Open):
    row: Line
    temperature: Amount
    entropy: Annotated[float, Field(ge=0, le=_MOST_ENTROPY)]
    gen_ppl: Annotated[float, Field(ge=0, le=_MOST_PERPLEXITY)]


class _Measured(Open):
    value: Value
    lo: Value | None
    hi: Value | None
    n: Count

    @model_validator(mode="after")
    def _fits(self) -> _Measured:
        if not ordered(self.value, self.lo, self.hi):
            raise ValueError(f"the value {self.value:g} is outside its interval")
        return self


class _Impostor(Open):
    name: Line
    published: bool
    measures: Annotated[dict[Metric, _Measured], Field(max_length=100)]


class AuditFields(Open):
    """What stands beside the scores of generated text."""

    data: Annotated[dict[Metric, _Measured], Field(max_length=100)] = Field(default_factory=dict)
    impostors: Annotated[list[_Impostor], Field(max_length=1000)] = Field(default_factory=list)
    excerpts: Annotated[list[_Excerpt], Field(max_length=100)] = Field(default_factory=list)
    frontier: Annotated[list[_Point], Field(max_length=1000)] = Field(default_factory=list)
