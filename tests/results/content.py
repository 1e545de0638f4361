"""The content of a small record, and copies of it in which something is otherwise."""

import copy
from dataclasses import replace
from typing import Any

from dihal_bench.results.migrations import SCHEMA
from dihal_bench.results.record import Record, Score

SCORE = Score(
    subject="hidden",
    metric="nll",
    value=4.0,
    lo=3.9,
    hi=4.1,
    kind="ensemble",
    n=1000,
    unit="nats/token",
    task="bundled:validation",
    regime="causal",
    version=1,
    dtype="float32",
    steps=16,
    chains=8,
    nfe=128,
    signal="sampled",
    details={"sum_nll": 4000.0},
)
TEACHER = replace(
    SCORE, **{"subject": "teacher", "kind": "exact", "steps": 1, "chains": 1, "nfe": 1}
)
BUDGET = {"name": "tiny", "diffusion_tokens": 64, "recovery_tokens": 32, "matched": "diffusion"}
GATE = {
    **{"verdict": "pass", "future": 0.0, "others": 0.0, "effect": 1.0, "tolerance": 1e-10},
    **{"tokens": 96, "reach": 256, "dtype": "float64"},
}


def row(subject: str, steps: int, chains: int, **changes: list[float]) -> dict[str, Any]:
    """A row of sums over two documents, of 600 and 400 tokens, that are those of the teacher."""
    usual: dict[str, list[float]] = {
        **{name: [0.0, 0.0] for name in ("kl", "kl_reverse", "kl_chain")},
        **{name: [600.0, 400.0] for name in ("top1", "top1_chain")},
        **{f"nll@{size}": [2400.0, 1600.0] for size in (1, 2, 4, 8) if size <= chains},
        "brier1": [6.0, 4.0],
    }
    named = {"subject": subject, "steps": steps, "chains": chains, "signal": "sampled"}
    return {**named, "sums": usual | changes}


CONTENT: dict[str, Any] = {
    "schema": SCHEMA,
    "weights": {"hidden": "0" * 64},
    "run": "hidden-0123",
    "created": "2026-01-01T00:00:00+00:00",
    "command": "dihal-bench run",
    "config": {
        **{"interface": "hidden", "seed": 0, "regime": "causal", "dtype": "float32"},
        **{"corpus": "bundled", "budget": dict(BUDGET), "score": {"resamples": 100}},
    },
    "interface": {
        **{"name": "hidden", "origin": "dihal_bench.interfaces.hidden:Hidden", "controls": []},
        **{"args": {"block": 0}, "from": 0, "replaced": 1},
    },
    "regime": "causal",
    "layer": 1,
    "layer_policy": "auto",
    "backbone": {"name": "bundled", "fingerprint": "ab", "blocks": 8},
    "corpus": {"name": "bundled", "fingerprint": "cd"},
    "budget": {**BUDGET, "within": True, "trunk": 1.0, "diffusion": 1.0},
    "spent": {"hidden": {"diffusion": {"tokens": 64, "steps": 2, "flops": 1e9, "seconds": 1.5}}},
    "locate": {},
    "costs": {
        "hidden": {
            **{"trunk_parameters": 9, "recovery_parameters": 0, "other_parameters": 0},
            **{"steps": 16, "ratio": 1.5},
        }
    },
    "bridge": {
        "fvu_mmse": 0.5,
        "curves": {"hidden": {"diffusion": [{"tokens": 32, "total": 1.5}]}},
        "oracle": {
            **{"agreement": 1.0, "kl": 0.0, "sigma_half": None},
            **{"sigmas": [0.1], "agreement_under_noise": [0.9]},
        },
        "progress": [],
    },
    "scores": [SCORE.to_dict(), TEACHER.to_dict()],
    "gates": {"leak": {"hidden": GATE}},
    "sums": {
        "documents": 2,
        "tokens": [600.0, 400.0],
        "words": [300.0, 200.0],
        "bytes": [1800.0, 1200.0],
        "rows": [row("hidden", 16, 8), row("teacher", 1, 1)],
    },
    "environment": {"git": None, "versions": {"dihal-bench": "0.1.0"}},
}
DATA = Record.of(CONTENT).data


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """A copy of the record with one field replaced."""
    data = copy.deepcopy(DATA)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return data


def of_subject(name: str) -> dict[str, Any]:
    """A copy of the record whose score and sums are somebody else's."""
    data = changed("scores", 0, "subject", to=name)
    data["sums"]["rows"][0]["subject"] = name
    return data


def without(*path: str | int) -> dict[str, Any]:
    data = copy.deepcopy(DATA)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return data
