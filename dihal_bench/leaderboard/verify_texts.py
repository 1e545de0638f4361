"""What a record says twice of generated text: its perplexity at an entropy, and the frontier."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.evaluation.samples.frontier import curve_at
from dihal_bench.results.fields import TEACHER
from dihal_bench.results.metrics import ENTROPY, GEN_PPL, GEN_PPL_AT_ENTROPY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from dihal_bench.results.record import Record, Score

_RELATIVE = 1e-6


def off_the_frontier(record: Record, followed: set[int]) -> Iterator[str]:
    """Say which perplexities at the entropy of real text are not those of their frontier.

    Nothing else of generated text can be computed anew. Intervals cannot: they are over samples,
    which a record does not hold.

    Args:
        record: of a run.
        followed: takes the places of the scores that points of the record stand behind.
    """
    for index, score in enumerate(record.scores):
        audit = record.data.get("audits", {}).get(score.task, {})
        real, points = audit.get("data", {}).get(ENTROPY.key), _points(score, audit)
        if score.metric != GEN_PPL_AT_ENTROPY.key or real is None or not points:
            continue
        followed.add(index)
        with np.errstate(all="ignore"):  # a stranger's perplexity may be 0
            found = curve_at(
                [point[ENTROPY.key] for point in points],
                [point[GEN_PPL.key] for point in points],
                real["value"],
            )
        if not math.isclose(score.value, found, rel_tol=_RELATIVE):
            missed = "does not reach the entropy of real text"
            yield (
                f"scores[{index}].value ({score.subject} {score.metric}) is {score.value}, and its "
                f"frontier {missed if math.isnan(found) else f'says {found:.10g}'}"
            )


def _points(score: Score, audit: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the points of a score's row, from the coldest on."""
    row = score.subject if score.subject == TEACHER else f"{score.subject} S={score.steps}"
    own = [point for point in audit.get("frontier", ()) if point["row"] == row]
    return sorted(own, key=lambda point: float(point["temperature"]))
