"""What a board's sweeps say in words: whether the geometry score tells more than plain depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dihal_bench.core.markdown import counted
from dihal_bench.leaderboard.site.numbers import parts
from dihal_bench.results.metrics import KL
from dihal_bench.studies.sweep.outcomes import SHORT
from dihal_bench.studies.sweep.predictors import SCORE

_LOSSES = (
    SHORT[KL.key],
    SHORT["kl_one_step"],
)  # by which layers are ranked: the first that is there
_SCORES = {SCORE: "the score of raw states", f"{SCORE}, matched": "the score of what is diffused"}
_EVERYTHING = "layers"  # the axis along which everything below a layer is replaced


def geometry(sweeps: Sequence[Mapping[str, Any]]) -> str:
    """Return whether scores rank layers better than depth where each costs as much, and why there.

    Args:
        sweeps: of a board.
    """
    equal = [own for own in sweeps if str(own.get("axis")).startswith("span-")]
    said = []
    for loss in _LOSSES:
        found = {
            name: [gain for own in equal for gain in _gains(own, name, loss)] for name in _SCORES
        }
        clauses = [
            _against_depth(_SCORES[name], gains, loss if not place else "", equal)
            for place, (name, gains) in enumerate(found.items())
            if gains
        ]
        if clauses:
            said.append(
                "Where the bridge of every layer replaces equally many blocks, "
                f"{'; '.join(clauses)}."
            )
            break
    if any(own.get("axis") == _EVERYTHING for own in sweeps):
        said.append(
            "Where everything below a layer is replaced, depth and cost are the same thing: any "
            "score that falls with depth looks perfect there."
        )
    return " ".join(said)


def _gains(sweep: Mapping[str, Any], score: str, loss: str) -> list[Mapping[str, Any]]:
    """Return a score's rank correlation with low loss minus that of depth, if it is known."""
    return [
        row["minus_depth"]
        for row in parts(sweep.get("correlations"))
        if (row.get("predictor"), row.get("loss")) == (score, loss)
        and isinstance(row.get("minus_depth"), Mapping)
        and None not in (row["minus_depth"].get("lo"), row["minus_depth"].get("hi"))
    ]


def _against_depth(
    score: str, gains: Sequence[Mapping[str, Any]], loss: str, sweeps: Sequence[Mapping[str, Any]]
) -> str:
    """Say on how many backbones intervals lie above and below what depth alone reaches."""
    alone = len({own.get("backbone") for own in sweeps}) == len(sweeps)
    of = "backbone" if alone else "sweep"
    above = sum(gain["lo"] > 0 for gain in gains)
    below = sum(gain["hi"] < 0 for gain in gains)
    same = len(gains) - above - below
    does = f" ranks layers by {loss} better than plain depth" if loss else ": better"
    told = [f"{score}{does} on {above or 'none'} of {counted(len(gains), of)}"]
    told += [f"worse on {below}"] if below else []
    told += [f"not told apart from it on {same}"] if same else []
    return ", ".join(told)
