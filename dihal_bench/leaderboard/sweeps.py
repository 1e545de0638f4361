"""Results of sweeps beside the records: read with the same suspicion."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from dihal_bench.leaderboard.store import LARGEST

if TYPE_CHECKING:
    from pathlib import Path

_Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*\z", max_length=300)]


class _Open(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Estimate(_Open):
    value: float | None
    lo: float | None
    hi: float | None


class _Agreement(_Open):
    kendall: _Estimate
    advantage: _Estimate
    regret: _Estimate
    predicted: Annotated[int, Field(ge=0)]


class _Sweep(_Open):
    title: _Line
    backbone: Annotated[_Line, Field(min_length=1)]
    layers: Annotated[list[int], Field(min_length=1, max_length=1000)]
    candidates: list[_Line]
    losses: dict[_Line, Annotated[list[list[float]], Field(min_length=1, max_length=1000)]]
    predictions: dict[_Line, list[float]]
    ranking: dict[_Line, dict[_Line, _Agreement]]

    @model_validator(mode="after")
    def _fits(self) -> _Sweep:
        count = len(self.layers)
        lengths = {len(self.candidates), *map(len, self.predictions.values())}
        lengths |= {len(row) for loss in self.losses.values() for row in loss}
        if lengths != {count}:
            raise ValueError(f"not everything is of {count} layers")
        for some in self.ranking.values():
            if any(found.predicted >= count for found in some.values()):
                raise ValueError("a predicted candidate is none of them")
        return self


def read_sweeps(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the results of sweeps over layers under a folder.

    Returns:
        Those that can be read, in the order of their paths, and a sentence for each of the others.
    """
    found, problems = [], []
    for path in sorted(folder.rglob("sweep-*.json")):
        axis = path.stem.removeprefix("sweep-")
        if axis != "layers" and not axis.startswith("span-"):
            continue
        try:
            if path.is_symlink() or path.stat().st_size > LARGEST:
                raise ValueError(f"it is a link, or has more than {LARGEST:,} bytes")
            own = json.loads(path.read_text(encoding="utf-8"))
            _Sweep.model_validate(own)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            problems.append(f"{path} is not a readable sweep ({place}: {first['msg']}).")
        except (OSError, ValueError, RecursionError) as error:
            problems.append(f"{path} is not a readable sweep ({error}).")
        else:
            found.append({**own, "axis": axis})
    return found, problems
