"""Tables of a sweep: what came out at each candidate, and who had told it beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.results.table import UNDEFINED, Column, Table, TableCell, TableRow
from dihal_bench.studies.ranking.agreement import LEAST, TOP, agreements
from dihal_bench.studies.sweep.outcomes import TITLES
from dihal_bench.studies.sweep.predictors import DEPTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.results.table import Value
    from dihal_bench.studies.ranking.agreement import Agreement, Prediction
    from dihal_bench.studies.sweep.outcomes import Outcomes


@dataclass(frozen=True, kw_only=True)
class SweepTable:
    """A sweep's results.

    Attributes:
        title: of the axis.
        outcomes: what came out.
        predictions: by name, none where layers are not what was swept.
        sample: tokens of a subsample of activations, how many it was drawn from, and how many
            subsamples; None without predictions.
        ranking: outcome -> predictor -> how well it had told.
    """

    title: str
    outcomes: Outcomes
    predictions: dict[str, Prediction]
    sample: dict[str, int] | None
    ranking: dict[str, dict[str, Agreement]]

    @classmethod
    def of(
        cls,
        title: str,
        outcomes: Outcomes,
        predictions: Mapping[str, Prediction],
        *,
        sample: dict[str, int] | None,
        resamples: int,
    ) -> SweepTable:
        """Rank the candidates by every predictor; fewer than three candidates have no ranking."""
        depth = [float(c.layer or 0) for c in outcomes.candidates]
        ranking = {}
        if predictions and len(depth) >= LEAST:
            ranking = {
                name: agreements(predictions, losses, depth, rival=DEPTH, resamples=resamples)
                for name, losses in outcomes.losses.items()
            }
        return cls(
            title=title,
            outcomes=outcomes,
            predictions=dict(predictions),
            sample=sample,
            ranking=ranking,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        outcomes = self.outcomes
        labels = [candidate.label for candidate in outcomes.candidates]
        return {
            "title": self.title,
            "candidates": labels,
            "layers": [candidate.layer for candidate in outcomes.candidates],
            "seeds": outcomes.seeds,
            "steps": outcomes.steps,
            "budget": outcomes.budget,
            "losses": {name: values.tolist() for name, values in outcomes.losses.items()},
            "costs": outcomes.costs,
            "predictions": {n: p.values.tolist() for n, p in self.predictions.items()},
            "sample": self.sample,
            "draws": {n: p.draws.tolist() for n, p in self.predictions.items()},
            "ranking": {
                outcome: {name: own.to_dict() for name, own in some.items()}
                for outcome, some in self.ranking.items()
            },
            "origins": outcomes.origins,
            "rests_on": outcomes.rests_on,
        }

    def candidates(self) -> Table:
        """Return a row per candidate: its losses over seeds, and what it costs."""
        losses = [
            Column(key=name, title=TITLES[name], type="estimate", digits=4)
            for name in self.outcomes.losses
        ]
        rows = []
        for i, candidate in enumerate(self.outcomes.candidates):
            cells: dict[str, Value] = {"candidate": candidate.label}
            for name, values in self.outcomes.losses.items():
                own = values[:, i]
                spread = float(own.std(ddof=1)) if len(own) > 1 else None
                cells[name] = TableCell(float(own.mean()), spread=spread)
            rows.append(TableRow(cells=cells | {"cost": self.outcomes.costs[i]["ratio"]}))
        return Table(columns=(_CANDIDATE, *losses, _COST), rows=rows)

    def ranked(self, loss: str) -> Table:
        """Return a row per predictor: how well it had told a loss that was ranked."""
        some = self.ranking[loss]
        labels = [candidate.label for candidate in self.outcomes.candidates]
        best = labels[next(iter(some.values())).observed]
        rows = [
            TableRow(cells={"predictor": name, **_ranked(own, labels)})
            for name, own in some.items()
        ]
        title = f"{TITLES[loss]}: lowest at {best}"
        return Table(title=title, columns=_RANKED, rows=rows)


_CANDIDATE = Column(key="candidate", title="candidate")
_COST = Column(key="cost", title="FLOPs/replaced", type="number", digits=1)
_RANKED = (
    Column(key="predictor", title="predictor"),
    *(
        Column(key=key, title=title, type="estimate", digits=2, signed=True)
        for key, title in (
            ("kendall", "Kendall τ"),
            ("advantage", "τ - τ(depth)"),
            ("spearman", "Spearman ρ"),
            ("partial", "partial ρ"),
        )
    ),
    Column(key="predicts", title="predicts"),
    Column(key="gap", title="gap", type="estimate"),
    Column(key="regret", title="regret", type="estimate", digits=4),
    Column(key="hit", title=f"in top {TOP}"),
)


def _ranked(own: Agreement, labels: list[str]) -> dict[str, Value]:
    orders = own.kendall.value is not None
    return {
        "kendall": own.kendall.cell,
        "advantage": own.advantage.cell,
        "spearman": own.spearman.cell,
        "partial": own.partial.cell or (UNDEFINED if orders else None),
        "predicts": labels[own.predicted],
        "gap": own.rank_gap.cell,
        "regret": own.regret.cell,
        "hit": ("yes" if own.hit else "no") if len(labels) > TOP else None,
    }
