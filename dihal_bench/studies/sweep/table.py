"""Tables of a sweep: what came out at each candidate, and who had told it beforehand."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from dihal_bench.results.table import UNDEFINED, Table, TableCell, differences, numbers, words
from dihal_bench.studies.ranking.agreement import LEAST, TOP, agreements
from dihal_bench.studies.sweep.outcomes import TITLES
from dihal_bench.studies.sweep.predictors import DEPTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.results.table import Value
    from dihal_bench.studies.ranking.agreement import Agreement, Array, Prediction
    from dihal_bench.studies.sweep.outcomes import Outcomes


@dataclass(frozen=True)
class SweepTable:
    """A sweep's results.

    Attributes:
        title: of the axis.
        outcomes: what came out.
        predictions: by name, none where layers are not what was swept.
        sample: tokens of a subsample of activations, how many it was drawn from, and how many
            subsamples; None without predictions.
        resamples: of the statistics.
    """

    title: str
    outcomes: Outcomes
    predictions: Mapping[str, Prediction]
    _: KW_ONLY
    sample: dict[str, int] | None
    resamples: int

    @cached_property
    def ranking(self) -> dict[str, dict[str, Agreement]]:
        """Outcome -> predictor -> how well it had told; none of fewer than three candidates."""
        depth = [float(c.layer or 0) for c in self.outcomes.candidates]
        if not self.predictions or len(depth) < LEAST:
            return {}
        ranked = partial(agreements, self.predictions, rival=DEPTH, resamples=self.resamples)
        return {name: ranked(losses, depth) for name, losses in self.outcomes.losses.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        outcomes, ranking = self.outcomes, self.ranking.items()
        return {
            "title": self.title,
            "candidates": [candidate.label for candidate in outcomes.candidates],
            "layers": [candidate.layer for candidate in outcomes.candidates],
            "seeds": outcomes.seeds,
            "steps": outcomes.steps,
            "budget": outcomes.budget,
            "losses": {name: values.tolist() for name, values in outcomes.losses.items()},
            "costs": outcomes.costs,
            "predictions": {n: p.values.tolist() for n, p in self.predictions.items()},
            "sample": self.sample,
            "draws": {n: p.draws.tolist() for n, p in self.predictions.items()},
            "ranking": {of: {n: own.to_dict() for n, own in some.items()} for of, some in ranking},
            "origins": outcomes.origins,
            "rests_on": outcomes.rests_on,
        }

    def candidates(self) -> Table:
        """Return a row per candidate: its losses over seeds, and what it costs."""
        candidates, costs = self.outcomes.candidates, self.outcomes.costs
        losses = [
            (numbers(name, TITLES[name], digits=4), lambda row, own=own: _over_seeds(own[:, row]))
            for name, own in self.outcomes.losses.items()
        ]
        return Table.of(
            range(len(candidates)),
            (words("candidate"), lambda row: candidates[row].label),
            *losses,
            (numbers("FLOPs/replaced", type="number", digits=1), lambda row: costs[row]["ratio"]),
            title=self.title,
        )

    def ranked(self, loss: str) -> Table:
        """Return a row per predictor: how well it had told a loss that was ranked."""
        some = self.ranking[loss]
        labels = [candidate.label for candidate in self.outcomes.candidates]
        best = labels[next(iter(some.values())).observed]
        return Table.of(
            some.items(),
            (words("predictor"), lambda row: row[0]),
            (differences("Kendall τ"), lambda row: row[1].kendall.cell),
            (differences("τ - τ(depth)"), lambda row: row[1].advantage.cell),
            (differences("Spearman ρ"), lambda row: row[1].spearman.cell),
            (differences("partial ρ"), lambda row: _partial(row[1])),
            (words("predicts"), lambda row: labels[row[1].predicted]),
            (numbers("gap"), lambda row: row[1].rank_gap.cell),
            (numbers("regret", digits=4), lambda row: row[1].regret.cell),
            (
                words(f"in top {TOP}"),
                lambda row: ("yes" if row[1].hit else "no") if len(labels) > TOP else None,
            ),
            title=f"{TITLES[loss]}: lowest at {best}",
        )


def _over_seeds(values: Array) -> TableCell:
    """Return the mean over seeds with its standard deviation, if there are several."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return TableCell(float(values.mean()), spread=spread)


def _partial(own: Agreement) -> Value:
    """Return the correlation given the depth; of what only selects there is none to be had."""
    return own.partial.cell or (None if own.kendall.value is None else UNDEFINED)
