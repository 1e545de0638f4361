"""Records of runs with plausible numbers of the bundled model, without sums and seal."""

import random
from collections.abc import Mapping
from typing import Any

# interface, layer, replaced blocks, (NLL, Brier-1, KL, gain) in one step and as mean of 8 chains
INTERFACES = (
    ("hidden", 1, 1, (3.2489, 0.2612, 0.0018, 0.0002), (3.2490, 0.2612, 0.0020, 0.0001)),
    ("hidden", 4, 4, (3.3811, 0.2440, 0.1820, 0.0121), (3.3902, 0.2433, 0.1905, 0.0031)),
    ("embedding", 8, 8, (4.7943, 0.1018, 1.6977, -0.3152), (6.6932, 0.0815, 3.6053, -2.2141)),
    ("c2d", 8, 8, (5.0055, 0.0838, 1.9466, -0.5264), (7.2134, 0.0759, 4.1331, -2.7342)),
    ("latent", 8, 8, (5.7699, 0.0714, 2.7036, -1.2907), (7.7031, 0.0647, 4.5993, -3.2240)),
)
CONTROLS = {
    "hidden": ("regress", 3.2491, 0.2612, 0.0020),
    "embedding": ("lm", 4.4791, 0.1086, 1.4329),
    "c2d": ("lm-decoder", 4.9614, 0.0801, 1.8992),
    "latent": ("lm", 4.4791, 0.1086, 1.4329),
}
FLOPS = {"hidden": 1.603e13, "embedding": 1.340e13, "c2d": 1.574e13, "latent": 1.430e13}
TEACHER = (3.2478, 0.2613)
SIGMAS = [2.0 ** (step / 2) for step in range(-8, 9)]


def estimate(value: float, half: float, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"value": value, "lo": value - half, "hi": value + half, "flags": list(flags)}


def record(
    run: dict[str, Any],
    name: str,
    entry: tuple[Any, ...],
    facts: Mapping[str, Any],
    chance: random.Random,
) -> dict[str, Any]:
    own, control, seed = run["interface"], CONTROLS[run["interface"]][0], run["seed"]
    spent = {
        "counted_tokens": 32768,
        "flops": FLOPS[own],
        "flops_per_token": FLOPS[own] / 524288,
        "peak_memory_bytes": 1522069504,
        "seconds": 82.03 + chance.random(),
        "steps": 256,
        "tokens": 524288,
        "trainable_parameters": 1086976,
    }
    gate = {"verdict": "pass", "future": 0.0, "others": 0.0, "effect": 8.9187, "tolerance": 1e-10}
    gate |= {"tokens": 96, "reach": 256, "dtype": "float64"}
    return {
        "schema": 3,
        **{"id": run["id"], "run": name, "created": run["created"], "regime": run["regime"]},
        "command": f"dihal-bench run --interface {own} --layer {run['layer']} --seed {seed}",
        **{"layer": run["layer"], "layer_policy": "auto" if run["layer"] == 1 else "middle"},
        "config": _config(run, control),
        "interface": {
            "name": own,
            "origin": f"dihal_bench.interfaces.{own}:{own.title()}",
            "args": {},
            **{"controls": [control], "replaced": run["replaced"], "from": 0},
        },
        "backbone": {"name": "bundled", "architecture": "llama", "blocks": 8, "hidden_size": 128}
        | {"parameters": 2132096, "dtype": "float32", "vocab_size": 4096},
        "corpus": {"name": "bundled", "train_tokens": 496714, "val_tokens": 252531},
        "budget": {"name": run["budget"], "diffusion_tokens": 524288, "recovery_tokens": 131072}
        | {"matched": "diffusion", "diffusion": 1.0, "trunk": 1.0, "within": run["within"]},
        "spent": {own: {"diffusion": spent}, control: {"diffusion": spent}},
        "gates": {"leak": {own: gate, control: gate}},
        "costs": {own: {"trunk_parameters": 1086976, "flops_per_token": 16971776.0, "ratio": 15.9}},
        "scores": _scores(entry, facts),
        "bridge": _bridge(own, control, chance),
        "locate": _locate() if own == "hidden" else {},
        "environment": {"git": "5c14b748b422", "device": "cpu", "seed": seed, "threads": 1}
        | {"versions": {"dihal-bench": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.7"}},
        **_texts(own, control),
    }


def _bridge(own: str, control: str, chance: random.Random) -> dict[str, Any]:
    return {
        **{"fvu_mmse": 0.00123, "fvu_sample": 0.00171, "steps": 16, "tokens": 12226},
        "oracle": {"agreement": 1.0, "kl": 1e-12, "sigmas": SIGMAS, "sigma_half": 11.7}
        | {"agreement_under_noise": [1 / (1 + (sigma / 12) ** 1.3) for sigma in SIGMAS]}
        | {"kl_under_noise": [0.0063 * sigma**2 for sigma in SIGMAS], "tokens": 1024},
        "progress": [
            {"subject": own, "share": share, "steps": 1, "nll@1": 3.52, "brier1": 0.2148}
            for share in (0.25, 0.5, 1.0)
        ],
        "curves": {own: _curves(chance, 0.03), control: _curves(chance, 0.05)},
    }


def _texts(own: str, control: str) -> dict[str, Any]:
    return {
        "excerpts": [
            {
                "prompt": "The function returns the",
                "real": " index of the first row whose value is not below the given one.",
                "rows": {
                    "teacher": " number of elements in the array.\nIf the axis is None, all of it.",
                    f"{own} S=16": " value of the given array, and the\nresult is an array of it.",
                    control: " value of the the array of the array of the array of the array.",
                },
            }
        ],
        "frontier": [
            {"row": row, "temperature": t, "gen_ppl": 9 * 4**t * k, "entropy": 3.6 + 1.3 * t / k}
            for row, k in (("teacher", 1.0), (f"{own} S=16", 1.2))
            for t in (0.5, 0.7, 0.9, 1.0, 1.2)
        ],
    }


def _config(run: dict[str, Any], control: str) -> dict[str, Any]:
    return {
        **{"interface": run["interface"], "layer": str(run["layer"]), "regime": run["regime"]},
        **{"backbone": "bundled", "corpus": "bundled", "seed": run["seed"], "dtype": "float32"},
        **{"controls": [control], "block": 0, "include": []},
        "budget": {"diffusion_tokens": 524288, "recovery_tokens": 131072, "matched": "diffusion"},
        "denoiser": {"name": "transformer", "width": 128, "heads": 4, "layers": 2},
        "diffusion": {"prediction": "x0", "sampler": "ddim", "train_steps": 1000},
        "losses": {"ce": 0.03, "diff": 1.0, "kd": 0.03, "rec": 1.0},
        "train": {"lr": 0.006, "batch": 8, "ema": 0.98, "optimizer": "muon", "autocast": True},
        "options": {"dim": 32} if run["interface"] == "latent" else {},
    }


def _scores(entry: tuple[Any, ...], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    name, _, _, *levels = entry
    control, *measured = CONTROLS[name]
    rows = [
        ("teacher", 1, 1, "exact", (*TEACHER, None, None)),
        (name, 1, 1, "ensemble", levels[0]),
        (name, 16, 8, "ensemble", levels[1]),
        (control, 1, 1, "exact", (*measured, None)),
    ]
    metrics = (("nll", "nats/token"), ("brier1", "score"), ("kl", "nats/token"), ("gain", "nats"))
    return [
        {
            **{"subject": subject, "metric": metric, "value": value, "unit": unit, "n": 24433},
            **{"lo": value - 0.01, "hi": value + 0.01, "task": facts["task"]},
            **{"kind": "estimate" if metric == "brier1" and chains > 1 else kind},
            **{"regime": facts["regime"], "version": 3, "dtype": "float32", "details": {}},
            **{"steps": steps, "chains": chains, "nfe": steps * chains, "signal": "sampled"},
        }
        for subject, steps, chains, kind, values in rows
        for (metric, unit), value in zip(metrics, values, strict=True)
        if value is not None
    ]


def _curves(chance: random.Random, floor: float) -> dict[str, list[dict[str, float]]]:
    points = []
    for step in range(1, 201):
        diff = floor + 1.1 / (1 + step / 9) + abs(chance.gauss(0, 0.012))
        rec, ce = 0.3 + diff, 3.2 + diff / 4 + chance.gauss(0, 0.05)
        total = diff + rec + 0.03 * ce
        points.append({"tokens": step * 2621, "total": total, "diff": diff, "rec": rec, "ce": ce})
    return {"diffusion": [{k: round(v, 6) for k, v in point.items()} for point in points]}


def _locate() -> dict[str, Any]:
    def cell(scale: float) -> dict[str, Any]:
        layers = [
            {
                "layer": layer,
                "score": estimate(scale * (3.9 - 0.42 * layer), 0.05),
                "curvature": estimate(0.033 / layer**0.5, 0.001),
                "stiffness": estimate(0.56 / layer**0.4, 0.01),
                "effective_rank": estimate(9 + 0.8 * layer, 0.4),
                "selected_share": float(layer == 1),
            }
            for layer in range(1, 8)
        ]
        return {"layers": layers, "selected": 1, "depth_correlation": 1.0, "flips": False}

    return {
        "blocks": 8,
        "cells": {"paper": cell(1.0), "matched": cell(1.6)},
        "stability": {"paper": 1.0, "matched": 1.0},
        "log_norm": [2.8, 3.0, 3.1, 3.3, 3.3, 3.4, 3.6],
        "sample": {"tokens": 3000, "kept": 5120, "resamples": 10},
    }
