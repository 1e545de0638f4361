"""Results whose score, losses and selections are planted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dihal_bench.core.checksum import sealed
from dihal_bench.core.files import write_json
from dihal_bench.reporting.sweep_table import replicated, result
from dihal_bench.results.study_schema import PAPER
from dihal_bench.studies.claims.evidence import Evidence
from dihal_bench.studies.ranking.agreement import Prediction
from dihal_bench.studies.sweep.outcomes import TITLES, Outcomes
from dihal_bench.studies.sweep.plan import layer_axis
from dihal_bench.studies.sweep.replicate import over_layers
from dihal_bench.studies.sweep.table import SweepTable

LAYERS = list(range(1, 9))
DEPTH = np.arange(8.0)
WAVE = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 0.5, 2.0, 6.0])


def table(
    loss: np.ndarray, score: np.ndarray, spread: float = 0.01, tokens: int = 500
) -> SweepTable:
    """A sweep whose score and losses are planted; every loss is the same."""
    generator = np.random.default_rng(0)
    count = len(loss)
    losses = loss + spread * generator.normal(size=(3, count))
    outcomes = Outcomes(
        candidates=list(layer_axis(LAYERS[:count], start=0, span=None).candidates),
        seeds=[0, 1, 2],
        losses=dict.fromkeys(TITLES, losses),
        steps=4,
        budget={"diffusion_tokens": 1024, "recovery_tokens": 512},
        costs=[{"ratio": 1.0}] * count,
        origins=["dihal-bench 0"],
        rests_on={"records": [], "corpora": ["c"], "devices": ["cpu"], "threads": [1]},
    )
    predictions = {
        "score": Prediction.of(score, score + spread * generator.normal(size=(20, count))),
        "depth": Prediction.of(-DEPTH[:count]),
        "ridge FVU": Prediction.of(-loss),
    }
    sample = {"tokens": tokens, "kept": 1000, "resamples": 20}
    return SweepTable("planted", outcomes, predictions, sample=sample, resamples=200)


def write(
    folder: Path, axis: str, tables: dict[str, SweepTable], change: Mapping[str, Any] | None = None
) -> Evidence:
    """Write results as a sweep does, with what tests change before they are sealed."""
    ids = {}
    for name, own in tables.items():
        content = result(own, None, backbone=name, axis=axis, blocks=9)
        content["rests_on"]["backbones"] = [f"weights of {name}"]
        content = sealed({**content, **(change or {})})
        ids[name] = content["id"]
        write_json(folder / name / f"sweep-{axis}.json", content)
    if change is None:
        said = replicated(over_layers(tables), axis, ids)
        write_json(folder / f"replication-{axis}.json", said)
    return Evidence.read([folder])


def grid(selected: list[int], small: int = 500) -> dict[str, Any]:
    axes = {axis: [value] for axis, value in PAPER.items()}
    axes |= {"neighbours": [10, 20], "ridge": [1e-3, 1e-1]}
    cells = [
        {
            **PAPER,
            **{"neighbours": k, "ridge": rho, "selected": layer},
            **{"small_share": 1.0, "small_rank_spread": 0.0},
        }
        for (k, rho), layer in zip(
            [(20, 1e-3), (10, 1e-3), (20, 1e-1), (10, 1e-1)], selected, strict=True
        )
    ]
    sample = {"tokens": 1000, "kept": 1000, "stability_tokens": small, "stability_resamples": 30}
    rests_on = {"records": [], "backbones": ["w"], "corpora": ["c"], "devices": [], "threads": []}
    content = {"axes": axes, "cells": cells, "sample": sample, "layers": [1, 2, 3]}
    return sealed({**content, "run": "b-grid", "backbone": "b", "rests_on": rests_on})
