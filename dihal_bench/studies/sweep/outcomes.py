"""What came out of a sweep's runs: losses per candidate and seed, lower is better in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.likelihood import SAMPLED
from dihal_bench.results.metrics import BRIER1, KL, NLL, base_name
from dihal_bench.results.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.studies.ranking.agreement import Array
    from dihal_bench.studies.study import Entry
    from dihal_bench.studies.sweep.plan import SweepCandidate

TITLES = {
    "fvu_mmse": "FVU, one step",
    "kl_one_step": "KL(teacher ‖ q), nats, one step",
    KL.key: "KL(teacher ‖ q), nats, sampled",
    NLL.key: "NLL, nats/token, sampled",
    "brier": "1 - Brier-1, sampled",
}
DOWNSTREAM = tuple(name for name in TITLES if name != "fvu_mmse")
DRAWN = tuple(name for name in TITLES if name != NLL.key)  # which moves as KL does
SHORT = {"fvu_mmse": "FVU", "kl_one_step": "KL S=1", KL.key: "KL", NLL.key: "NLL", "brier": "Brier"}


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Losses of all runs of a sweep.

    Attributes:
        candidates: of the axis, in its order.
        seeds: in the order of the rows.
        losses: name of ``TITLES`` -> [seeds, candidates].
        steps: network evaluations per chain of what is sampled: KL and NLL of a single chain, Brier
            over the pairs of all.
        budget: of all runs.
        costs: per candidate, as ``scoring.cost`` has them.
        origins: versions of the code that made them.
        rests_on: ids of the records, fingerprints of backbones and corpora, devices, threads.
        setting: what they were made with, in one line.
    """

    candidates: list[SweepCandidate]
    seeds: list[int]
    losses: dict[str, Array]
    steps: int
    budget: dict[str, Any]
    costs: list[dict[str, float]]
    origins: list[str]
    rests_on: dict[str, list[Any]]
    setting: str = ""

    @classmethod
    def gather(cls, entries: Sequence[Entry[SweepCandidate]]) -> Outcomes:
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
            setting=_setting(records, seeds),
            rests_on={
                "records": [record.data["id"] for record in records],
                "backbones": sorted({record.data["backbone"]["fingerprint"] for record in records}),
                "corpora": sorted({record.data["corpus"]["fingerprint"] for record in records}),
                "devices": sorted({e["device"] for e in environments}),
                "threads": sorted({e["threads"] for e in environments}),
            },
        )

    def mean(self, name: str) -> Array:
        """Return a loss's mean over seeds, [candidates]."""
        mean: Array = self.losses[name].mean(0)
        return mean


def _setting(records: Sequence[Record], seeds: Sequence[int]) -> str:
    """Return on what, with how much training and with which seeds the records were made."""
    data = [record.data for record in records]
    backbones = [f"{d['backbone']['name']} ({d['backbone']['blocks']} blocks)" for d in data]
    spent = [
        " + ".join(f"{own['tokens']:,} {phase}" for phase, own in phases.items())
        for d in data
        if (phases := d["spent"][d["interface"]["name"]])
    ]
    teacher = [
        f"{score.value:.3f}"
        for record in records
        for score in record.own_scores
        if score.subject == "teacher" and base_name(score.metric) == NLL.key
    ]
    parts = {
        "backbone": backbones,
        "corpus": [d["corpus"]["name"] for d in data],
        "tokens of training": spent,
        "seeds": map(str, seeds),
        "the teacher's NLL": teacher,
    }
    said = {name: ", ".join(dict.fromkeys(values)) for name, values in parts.items()}
    return "; ".join(f"{name}: {text}" for name, text in said.items() if text)


def _losses(record: Record) -> dict[str, float]:
    """Return the losses of a run, of the interface's own signal.

    What is not iterative has one step alone, and no loss of its own for it.
    """
    data = record.data
    subject, most = data["interface"]["name"], max(data["config"]["score"]["steps"])
    own = {
        (base_name(score.metric), score.steps, score.chains): score.value
        for score in record.own_scores
        if score.subject == subject and score.signal == SAMPLED
    }
    steps = most if any(key[1] == most for key in own) else 1
    brier = [value for (metric, s, _), value in own.items() if (metric, s) == (BRIER1.key, steps)]
    found = {
        "fvu_mmse": float(data["bridge"]["fvu_mmse"]),
        "kl_one_step": own.get((KL.key, 1, 1)) if steps > 1 else None,
        KL.key: own.get((KL.key, steps, 1)),
        NLL.key: own.get((NLL.key, steps, 1)),
        "brier": 1 - brier[0] if brier else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _check_budgets(entries: Sequence[Entry[SweepCandidate]], records: Sequence[Record]) -> None:
    budgets = [record.data["config"]["budget"] for record in records]
    for entry, budget in zip(entries, budgets, strict=True):
        other = [key for key, value in budget.items() if budgets[0].get(key) != value]
        if other:
            raise UserError(
                f"{entry.run.folder} was trained with budget.{other[0]}={budget[other[0]]}, the "
                f"first run with {budgets[0][other[0]]}: runs of different budgets cannot be "
                "ranked; sweep them in separate folders."
            )
