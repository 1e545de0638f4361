"""Results that are no records: what their JSON holds, and how it is read, as if from strangers.

A sweep's result, what several backbones say together, and a protocol grid are sealed as records
are: `run` names what was done, `id` stands for the content, and a field that was changed is named.
Everything that claims and leaderboard read of them is said here; what nobody reads may hold
anything.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from dihal_bench.core.checksum import broken
from dihal_bench.core.errors import UserError
from dihal_bench.core.explain import fault

if TYPE_CHECKING:
    from pathlib import Path

PAPER = {  # DiHAL's own protocol, on the axes of a grid
    "tokens": "all",
    "space": "raw",
    "curvature": "largest",
    "rank": "stable",
    "neighbours": 20,
    "ridge": 1e-3,
}
_COMPARED = ("score", "depth", "ridge FVU")  # predictors that claims are judged by

_Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*\z", max_length=300)]
_Name = Annotated[_Line, Field(min_length=1)]
_Positive = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Rows = Annotated[list[list[float]], Field(min_length=1, max_length=1000)]


def _axis(value: str) -> str:
    if re.fullmatch(r"layers|transform|span-[1-9][0-9]*", value) is None:
        raise ValueError("it must be layers, transform, or span- and a number")
    return value


class _Open(BaseModel):
    """Fields that are read, among others."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Grounds(_Open):
    records: list[_Line]
    backbones: Annotated[list[_Line], Field(min_length=1)]
    corpora: Annotated[list[_Line], Field(min_length=1)]
    devices: list[_Line]
    threads: list[_Positive]


class _Sealed(_Open):
    seal: dict[str, str]
    id: _Line
    run: _Line


class _Estimate(_Open):
    value: float | None
    lo: float | None
    hi: float | None


class _Agreement(_Open):
    kendall: _Estimate
    advantage: _Estimate
    regret: _Estimate
    predicted: Annotated[int, Field(ge=0)]


class _Budget(_Open):
    diffusion_tokens: _Positive
    recovery_tokens: _Positive


class _Sample(_Open):
    tokens: _Positive
    kept: _Positive


class _GridSample(_Sample):
    stability_tokens: _Positive
    stability_resamples: _Positive


class _Taus(_Open):
    diffused: dict[_Line, _Estimate]


class _Intervention(_Open):
    tau: _Taus


class SweepFields(_Sealed):
    """Along layers, or along changes of coordinates within them."""

    axis: Annotated[str, AfterValidator(_axis)]
    title: _Line
    backbone: _Name
    blocks: _Positive
    budget: _Budget
    seeds: Annotated[list[int], Field(min_length=1)]
    layers: Annotated[list[_Positive], Field(min_length=1, max_length=1000)]
    candidates: list[_Line]
    losses: dict[_Line, _Rows]
    predictions: dict[_Line, list[float]]
    draws: dict[_Line, _Rows]
    sample: _Sample | None
    ranking: dict[_Line, dict[_Line, _Agreement]]
    intervention: _Intervention | None = None
    rests_on: _Grounds

    @model_validator(mode="after")
    def _fits(self) -> SweepFields:
        count = len(self.layers)
        rows = [row for values in (*self.losses.values(), *self.draws.values()) for row in values]
        lengths = {len(self.candidates), *map(len, self.predictions.values()), *map(len, rows)}
        if lengths != {count}:
            raise ValueError(f"not everything is of {count} layers")
        if {len(loss) for loss in self.losses.values()} - {len(self.seeds)}:
            raise ValueError(f"not every loss is of {len(self.seeds)} seeds")
        if self.axis == "transform":
            self._has_moved()
        else:
            self._has_predicted()
        return self

    def _has_moved(self) -> None:
        if self.intervention is None:
            raise ValueError("intervention is missing")

    def _has_predicted(self) -> None:
        if self.layers != sorted({*self.layers}) or self.layers[-1] >= self.blocks:
            raise ValueError(f"layers are not ascending ones below {self.blocks}")
        if self.sample is None or "fvu_mmse" not in self.losses:
            raise ValueError("sample or losses.fvu_mmse is missing")
        if "score" not in self.predictions or "score" not in self.draws:
            raise ValueError("predictions or draws have no score")
        for loss, some in self.ranking.items():
            if loss not in self.losses or not set(_COMPARED) <= set(some):
                raise ValueError(f"ranking.{loss} lacks its loss, or one of {', '.join(_COMPARED)}")
            if any(found.predicted >= len(self.layers) for found in some.values()):
                raise ValueError("a predicted candidate is none of them")


class ReplicationFields(_Sealed):
    """Statistics over several sweeps, named by their ids."""

    axis: _Name
    sweeps: dict[_Line, _Line]
    rows: list[dict[str, Any]]


class _Cell(_Open):
    tokens: _Line
    space: _Line
    curvature: _Line
    rank: _Line
    neighbours: int
    ridge: float
    selected: int
    small_share: _Share
    small_rank_spread: Annotated[float, Field(ge=0)]


class GridFields(_Sealed):
    """The selected layer under every protocol."""

    backbone: _Name
    axes: dict[_Line, list[Any]]
    layers: Annotated[list[Any], Field(min_length=1)]
    cells: Annotated[list[_Cell], Field(min_length=1)]
    sample: _GridSample
    rests_on: _Grounds

    @model_validator(mode="after")
    def _fits(self) -> GridFields:
        if set(self.axes) != set(PAPER):
            raise ValueError(f"axes are not {', '.join(PAPER)}")
        if not any(all(getattr(cell, a) == v for a, v in PAPER.items()) for cell in self.cells):
            raise ValueError("no cell is of the paper's protocol")
        return self


def read_result(
    path: Path, kind: type[SweepFields] | type[ReplicationFields] | type[GridFields]
) -> dict[str, Any]:
    """Read a result and check it.

    Args:
        path: of the file.
        kind: what it has to be.

    Returns:
        Its JSON object.

    Raises:
        UserError: it cannot be read, or a field is missing, wrong, or was changed after the file
            was written; the sentence names file and field.
    """
    what = f"{path} is not a readable {kind.__name__.removesuffix('Fields').lower()}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind.model_validate(content)
        changed = broken(content)
    except ValidationError as error:
        raise UserError(f"{what}: {fault(error)}; run its command again.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{what} ({error}); run its command again.") from error
    if changed:
        raise UserError(
            f"{what}: the field {changed} was changed after it was written; restore it, or run its "
            "command again."
        )
    found: dict[str, Any] = content
    return found
