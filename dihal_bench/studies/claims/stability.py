"""How much the selected layer hangs on which tokens were drawn (C4), and on definitions (Q1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.results.study_schema import PAPER
from dihal_bench.studies.claims.claim import FAILS, HOLDS, UNDECIDED, Claim, Finding, blocks
from dihal_bench.studies.claims.evidence import LAYERS
from dihal_bench.studies.ranking.agreement import LEAST, kendall
from dihal_bench.studies.sweep.predictors import SCORE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.studies.claims.evidence import Evidence

_STABLE, _UNSTABLE = 0.95, 0.5


def stable(evidence: Evidence) -> Claim:
    """C4: the ranking is stable under subsampling."""
    findings = [
        _of_draws(own, leads=axis != LAYERS) for axis, alike in evidence.kinds() for own in alike
    ]
    findings += [_of_grid(grid) for grid in evidence.grids]
    return Claim(
        key="C4",
        statement="The ranking of layers is stable under subsampling of activations.",
        commands=("dihal-bench sweep", "dihal-bench sweep --span 2", "dihal-bench locate --grid"),
        findings=tuple(dict.fromkeys(findings)),  # other budgets have the same subsamples
        remarks=(
            f"Holds: at least {_STABLE:.0%} of the subsamples select the same layer; fails: fewer "
            f"than {_UNSTABLE:.0%}. Subsamples of more than half of the tokens overlap too much to "
            f"say anything, and fewer than {LEAST} layers have no ranking: both are undecided, and "
            "decide nothing. Of the others lead the small subsamples of grids, and sweeps with "
            "equal replaced blocks. Stability is no merit of its own: depth is perfectly stable.",
        ),
    )


def _of_draws(own: Mapping[str, Any], *, leads: bool) -> Finding:
    scores, draws = np.array(own["predictions"][SCORE]), np.array(own["draws"][SCORE])
    share = float((draws.argmax(1) == scores.argmax()).mean())
    taus = kendall(draws, np.broadcast_to(scores, draws.shape))
    known = taus[~np.isnan(taus)]
    least = f"{known.min():+.2f}" if len(known) else "undefined"
    tokens, kept = own["sample"]["tokens"], own["sample"]["kept"]
    layers = len(own["layers"])
    return Finding(
        scope=f"{own['backbone']}, {layers} layers, {blocks(own['axis'])}; {len(draws)} large "
        f"subsamples of {tokens:,} of {kept:,} tokens",
        statistic="share that selects the same layer; τ with the score of all, least",
        value=f"{share:.0%}; {least}" if layers >= LEAST else "undefined",
        rival="-",
        verdict=_under_subsampling(share, layers, tokens, kept),
        leads=leads and _tells(layers, tokens, kept),
    )


def _of_grid(grid: Mapping[str, Any]) -> Finding:
    cell, sample, layers = _paper_cell(grid), grid["sample"], len(grid["layers"])
    share, tokens = cell["small_share"], sample["stability_tokens"]
    spread = f"{share:.0%}; {cell['small_rank_spread']:.2f}"
    return Finding(
        scope=f"{grid['backbone']}, {layers} layers; {sample['stability_resamples']} small "
        f"subsamples of {tokens:,} of {sample['kept']:,} tokens",
        statistic="share that selects the same layer; spread of ranks",
        value=spread if layers >= LEAST else "undefined",
        rival="-",
        verdict=_under_subsampling(share, layers, tokens, sample["kept"]),
        leads=_tells(layers, tokens, sample["kept"]),
    )


def _under_subsampling(share: float, layers: int, tokens: int, kept: int) -> str:
    return _stability(share, layers) if _tells(layers, tokens, kept) else UNDECIDED


def _tells(layers: int, tokens: int, kept: int) -> bool:
    """Return whether there is a ranking, and subsamples that are not mostly the same tokens."""
    return layers >= LEAST and 2 * tokens <= kept


def _stability(share: float, layers: int) -> str:
    if layers < LEAST:
        return UNDECIDED
    return HOLDS if share >= _STABLE else FAILS if share < _UNSTABLE else UNDECIDED


def robust(evidence: Evidence) -> Claim:
    """Q1: does the selection depend on k, on the ridge, on the other definitions?"""
    findings = []
    for grid in evidence.grids:
        paper = _paper_cell(grid)
        for what, axes in {
            "k and ridge alone": ("neighbours", "ridge"),
            "definitions of curvature and rank": ("curvature", "rank"),
            "tokens and space": ("tokens", "space"),
            "everything": tuple(PAPER),
        }.items():
            cells = [
                cell
                for cell in grid["cells"]
                if all(cell[axis] == paper[axis] for axis in PAPER if axis not in axes)
            ]
            same = float(np.mean([cell["selected"] == paper["selected"] for cell in cells]))
            selected = sorted({cell["selected"] for cell in cells})
            findings.append(
                Finding(
                    scope=f"{grid['backbone']}, {len(cells)} protocols",
                    statistic=f"varied: {what}; share that selects layer {paper['selected']}, and "
                    "all layers that are selected",
                    value=f"{same:.0%}; {', '.join(map(str, selected))}",
                    rival="-",
                    verdict=_stability(same, len(grid["layers"])),
                    leads=what == "everything",
                )
            )
    return Claim(
        key="Q1",
        statement="The selected layer does not hang on how the score is defined.",
        commands=("dihal-bench locate --grid",),
        findings=tuple(findings),
    )


def _paper_cell(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cell of the paper's protocol, which every grid has."""
    cells: list[dict[str, Any]] = grid["cells"]
    return next(cell for cell in cells if all(cell[axis] == v for axis, v in PAPER.items()))
