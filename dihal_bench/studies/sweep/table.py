"""Tables of a sweep: what came out at each candidate, and who had told it beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.studies.ranking.agreement import LEAST, TOP, agreements
from dihal_bench.studies.sweep.outcomes import TITLES
from dihal_bench.studies.sweep.predictors import DEPTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.studies.ranking.agreement import Agreement, Interval, Prediction
    from dihal_bench.studies.sweep.outcomes import Outcomes

_FEW = 4  # candidates, of so few orders that any predictor may hit the right one by chance
LEGEND = (
    "Predictors are turned so that higher promises a lower loss; rank correlations are with minus "
    "the loss. Intervals: 95 %, over subsamples of activations and over trainings drawn anew, of "
    "the layers as they are; of three trainings they are too narrow. The score sees training text "
    "alone, the FVU of ridge and token mean the very windows that the losses are of. Partial: "
    "Spearman's given the depth, undefined where predictor or loss is monotone in it. τ - τ(depth):"
    " what a predictor adds to naming the earliest layer, in pairs; a score for which it is not "
    "above 0 has shown nothing. Gap: candidates that came out better than the predicted one. No "
    "p-value stands here: layers of one backbone are no sample of anything."
)


@dataclass(frozen=True, kw_only=True)
class Table:
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
    ) -> Table:
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


def show(table: Table, *, form: str = "simple") -> str:
    """Return the tables as text.

    Args:
        table: of the sweep.
        form: of tabulate: "simple", or "github" for Markdown.
    """
    from tabulate import tabulate

    outcomes = table.outcomes
    parts = [
        _head(table.title, form),
        *([outcomes.setting] if outcomes.setting else []),
        tabulate(_candidates(outcomes), headers="keys", tablefmt=form, disable_numparse=True),
        f"Sampled: in {outcomes.steps} network evaluations per chain; KL and NLL of one chain."
        f"{_spread(len(outcomes.seeds))}",
    ]
    if table.sample is not None:
        parts.append(_subsampled(table.sample))
    for name, some in table.ranking.items():
        best = outcomes.candidates[next(iter(some.values())).observed].label
        labels = [candidate.label for candidate in outcomes.candidates]
        rows = [_ranked(predictor, own, labels) for predictor, own in some.items()]
        parts += [
            _head(f"{TITLES[name]}: lowest at {best}", form),
            tabulate(rows, headers="keys", tablefmt=form, disable_numparse=True),
        ]
    parts += _notes(table)
    return "\n\n".join([*parts, "made by " + "; ".join(outcomes.origins)])


def _notes(table: Table) -> list[str]:
    """What has to be said of a ranking, or of there being none; nothing of other sweeps."""
    count = len(table.outcomes.candidates)
    if table.ranking:
        orders = math.factorial(count)
        few = f"{count} candidates have {orders} orders: by chance τ is 1 once in {orders} times."
        return [LEGEND] if count > _FEW else [LEGEND, few]
    if table.predictions:
        return [
            f"No predictor is ranked: fewer than {LEAST} candidates have no ranking, since the "
            "rank correlation of two is always 1 or -1."
        ]
    return []


def _subsampled(sample: Mapping[str, int]) -> str:
    """Return what the subsamples of activations are, and a warning where they leave nothing out."""
    resamples, tokens, kept = (sample[name] for name in ("resamples", "tokens", "kept"))
    text = f"Subsamples of activations: {resamples}, of {tokens:,} of {kept:,} tokens."
    if tokens < kept:
        return text
    return f"{text} They leave nothing out: intervals are over trainings alone."


def _spread(seeds: int) -> str:
    return f" ±: standard deviation over {seeds} seeds." if seeds > 1 else " One seed."


def _head(text: str, form: str) -> str:
    return f"### {text}" if form == "github" else f"== {text} =="


def _candidates(outcomes: Outcomes) -> list[dict[str, str]]:
    rows = []
    for i, candidate in enumerate(outcomes.candidates):
        row = {"candidate": candidate.label}
        for name, losses in outcomes.losses.items():
            column = losses[:, i]
            spread = f" ± {column.std(ddof=1):.4f}" if len(column) > 1 else ""
            row[TITLES[name]] = f"{column.mean():.4f}{spread}"
        row["FLOPs/replaced"] = f"{outcomes.costs[i]['ratio']:.1f}"
        rows.append(row)
    return rows


def _ranked(name: str, own: Agreement, labels: list[str]) -> dict[str, str]:
    return {
        "predictor": name,
        "Kendall τ": _shown(own.kendall, "+.2f"),
        "τ - τ(depth)": _shown(own.advantage, "+.2f"),
        "Spearman ρ": _shown(own.spearman, "+.2f"),
        "partial ρ": _shown(own.partial, "+.2f", "-" if own.kendall.value is None else "undefined"),
        "predicts": labels[own.predicted],
        "gap": _shown(own.rank_gap, ".0f"),
        "regret": _shown(own.regret, ".4f"),
        **({f"in top {TOP}": "yes" if own.hit else "no"} if len(labels) > TOP else {}),
    }


def _shown(interval: Interval, form: str, missing: str = "-") -> str:
    if interval.value is None:
        return missing
    value = f"{interval.value:{form}}"
    if interval.lo is None or interval.hi is None or interval.lo == interval.hi:
        return value
    return f"{value} [{interval.lo:{form}}, {interval.hi:{form}}]"
