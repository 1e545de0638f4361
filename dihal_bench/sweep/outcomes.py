"""What came out of a sweep's runs: losses per candidate and seed, lower is better in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.errors import UserError
from dihal_bench.records import Record
from dihal_bench.scoring.likelihood import SAMPLED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.ranking.agreement import Array
    from dihal_bench.sweep.plan import Candidate, Entry

TITLES = {
    "fvu_mmse": "FVU, one step",
    "kl": "KL(teacher ‖ q), nats",
    "nll": "NLL, nats/token",
}
SHORT = {"fvu_mmse": "FVU", "kl": "KL", "nll": "NLL"}


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Losses of all runs of a sweep.

    Attributes:
        candidates: of the axis, in its order.
        seeds: in the order of the rows.
        losses: name of ``TITLES`` -> [seeds, candidates].
        steps: network evaluations per chain that KL and NLL are of; a single chain.
        budget: of all runs.
        costs: per candidate, as ``scoring.cost`` has them.
        origins: versions of the code that made them.
    """

    candidates: list[Candidate]
    seeds: list[int]
    losses: dict[str, Array]
    steps: int
    budget: dict[str, Any]
    costs: list[dict[str, float]]
    origins: list[str]

    @classmethod
    def gather(cls, entries: Sequence[Entry]) -> Outcomes:
        """Read the records of a sweep.

        Raises:
            UserError: a run is not complete, or the runs had different budgets.
        """
        records = [Record.read(entry.run.folder / "record.json") for entry in entries]
        _check_budgets(entries, records)
        candidates = list(dict.fromkeys(entry.candidate for entry in entries))
        seeds = list(dict.fromkeys(entry.run.config.seed for entry in entries))
        shape = (len(seeds), len(candidates))
        found = [_losses(record) for record in records]
        names = [name for name in TITLES if all(name in losses for losses in found)]
        first = records[0].data
        environments = [record.data["environment"] for record in records]
        return cls(
            candidates=candidates,
            seeds=seeds,
            losses={n: np.array([own[n] for own in found]).reshape(shape) for n in names},
            steps=first["config"]["score"]["steps"][-1],
            budget=first["config"]["budget"],
            costs=[r.data["costs"][r.data["interface"]["name"]] for r in records[: shape[1]]],
            origins=sorted(
                {f"dihal-bench {e['versions']['dihal-bench']} {e['git']}" for e in environments}
            ),
        )

    def mean(self, name: str) -> Array:
        """Return a loss's mean over seeds, [candidates]."""
        mean: Array = self.losses[name].mean(0)
        return mean


def _losses(record: Record) -> dict[str, float]:
    """Return the losses of a run: one chain of the interface's own signal, at the most steps."""
    data = record.data
    name, steps = data["interface"]["name"], data["config"]["score"]["steps"][-1]
    found = {"fvu_mmse": float(data["bridge"]["fvu_mmse"])}
    for score in record.own_scores:
        own = score.subject == name and score.signal == SAMPLED and score.chains == 1
        if own and score.steps in (steps, 1):  # one step of what is not iterative
            metric = score.metric.removeprefix("first_token_")
            if metric in ("kl", "nll") and (score.steps == steps or metric not in found):
                found[metric] = score.value
    return found


def _check_budgets(entries: Sequence[Entry], records: Sequence[Record]) -> None:
    budgets = [record.data["config"]["budget"] for record in records]
    for entry, budget in zip(entries, budgets, strict=True):
        other = [key for key, value in budget.items() if budgets[0].get(key) != value]
        if other:
            raise UserError(
                f"{entry.run.folder} was trained with budget.{other[0]}={budget[other[0]]}, the "
                f"first run with {budgets[0][other[0]]}: runs of different budgets cannot be "
                "ranked; sweep them in separate folders."
            )
