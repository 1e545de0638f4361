"""Kinds of fields that a record has: lines, names, counts and amounts, each within its range."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from dihal_bench.core.files import PLAIN

TEACHER = "teacher"
LARGEST_DRAWN = 1e30  # what is drawn is squared, summed and scaled on the way
_LARGEST_VALUE = 1e305  # of a score: a perplexity may be that large, and is never drawn

Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*\z", max_length=300)]
Text = Annotated[str, StringConstraints(max_length=20_000)]
_Identifier = StringConstraints(pattern=rf"^{PLAIN}\z", max_length=100)
Subject = Annotated[str, _Identifier]
Metric = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.,@:/+ -]*\z", max_length=64)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]  # SHA-256
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Amount = Annotated[float, Field(ge=0, le=LARGEST_DRAWN)]
Real = Annotated[float, Field(ge=-LARGEST_DRAWN, le=LARGEST_DRAWN)]
Share = Annotated[float, Field(ge=0, le=1)]
Brier = Annotated[float, Field(ge=-1.001, le=1.001)]  # what it may be, but for rounding
Value = Annotated[float, Field(ge=-_LARGEST_VALUE, le=_LARGEST_VALUE)]


def _not_teacher(name: str) -> str:
    if name == TEACHER:
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


Time = Annotated[Line, AfterValidator(_is_time)]
Name = Annotated[Subject, AfterValidator(_not_teacher)]


class Open(BaseModel):
    """Fields that are read, among others."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Closed(Open):
    """Fields that are read, and no others."""

    model_config = ConfigDict(extra="forbid")


def ordered(value: float | None, lo: float | None, hi: float | None) -> bool:
    """Whether a value lies in its interval, as far as there is one, but for rounding."""
    known = [end for end in (lo, value, hi) if end is not None]
    slack = 1e-9 * max(map(abs, known), default=0.0)
    return all(one <= other + slack for one, other in pairwise(known))


TOLERANCE = 1e-10  # of a logit, in float64, that moves and counts as unmoved
LOOSEST = {  # arithmetic -> largest tolerance under which a leak gate says anything
    "float64": TOLERANCE,
    "float32": 1e-2,  # roundings of a logit
    "float16": 0.5,
    "bfloat16": 0.5,
}
AGREEMENT = 0.005  # nats, at most, between a score and what is computed anew from its prefix
SAME = 1e-4  # nats that are rounding
CONVERGED = 0.02  # nats between half the chains and all of them
LEAST_SEEDS = 3  # trainings for a rank or a verdict: the spread of fewer is not known
