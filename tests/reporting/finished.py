"""The record of a finished run with everything that a model card shows, and its folder."""

import json
from pathlib import Path
from typing import Any

from dihal_bench.results.migrations import SCHEMA
from dihal_bench.results.record import Record

CORPUS = "allenai/dolma:v1_7"
PRIVATE_TEXT = "home/somebody"  # a part of every path below


def score(
    subject: str, metric: str, value: float, steps: int = 1, chains: int = 1, **fields: Any
) -> dict[str, Any]:
    kind = "ensemble" if subject == "hidden" else "exact"
    usual = {
        "lo": value - 0.01,
        "hi": value + 0.01,
        "kind": kind,
        "n": 1000,
        "unit": "nats/token",
        "task": f"{CORPUS}:validation",
        "regime": "causal",
        "version": 3,
        "dtype": "float32",
        "nfe": steps * chains,
        "signal": "sampled",
        "details": {},
    }
    named = {"subject": subject, "metric": metric, "value": value, "steps": steps, "chains": chains}
    return {**named, **usual, **fields}


def gain(value: float, lo: float | None, hi: float | None, steps: int = 16) -> dict[str, Any]:
    details = {"control": "regress", "control_steps": 1}
    return score("hidden", "diffusion_gain", value, steps, lo=lo, hi=hi, details=details)


SAMPLES = {
    "task": "samples",
    "signal": "generated",
    "kind": "estimate",
    "n": 256,
    "details": {"judge": "bundled-judge", "temperature": 1.0},
}
SCORES = [
    score("teacher", "nll", 3.2),
    score("hidden", "nll", 3.25, 16),
    score("hidden", "nll", 3.2412345678901234, 16, 8, details={"converged": False}),
    score("hidden", "ppl", 25.5, 16, 8, unit="per token"),
    score("hidden", "bits_per_byte", 1.25, 16, 8, unit="bits/byte"),
    score("hidden", "brier1", 0.26, 16, 8, kind="estimate", unit="score"),
    score("hidden", "kl", 0.002, 16, 8, lo=None, hi=None),
    score("hidden", "top1", 0.98, 16, 8, unit="share"),
    score("hidden", "nll", 9.9, 16, 2, signal="shuffled"),
    score("regress", "nll", 3.24),
    score("ridge", "nll", 3.48),
    gain(-0.0123, -0.02, -0.004),
    score("hidden", "gen_ppl", 41.5, 16, unit="per token", **SAMPLES),
    score("hidden", "entropy", 4.1, 16, unit="nats", **SAMPLES),
    score("teacher", "gen_ppl", 33.3, unit="per token", **SAMPLES),
    score("hidden", "acc", 0.3, 16, task="arc_easy", unit="share", kind="estimate"),
]
ROWS = [SCORES[i] for i in (0, 1, 9, 10)]  # one score of every row of the sums
GATE = {
    **{"verdict": "pass", "future": 0.0, "others": 0.0, "effect": 1.0, "tolerance": 1e-10},
    **{"tokens": 96, "reach": 256, "dtype": "float64"},
}
SUMS = {
    **{"documents": 1, "tokens": [1.0], "words": [1.0], "bytes": [1.0]},
    "rows": [
        {
            **{"subject": subject, "steps": steps, "chains": 1, "signal": "sampled"},
            "sums": {
                **{name: [0.0] for name in ("kl", "kl_reverse", "kl_chain")},
                **{name: [1.0] for name in ("top1", "top1_chain")},
                **{"nll@1": [3.2], "brier1": [0.26]},
            },
        }
        for subject, steps in (("teacher", 1), ("hidden", 16), ("regress", 1), ("ridge", 1))
    ],
}
BUDGET = {"name": "tiny", "matched": "diffusion", "diffusion_tokens": 1024, "recovery_tokens": 512}
SPENT = {
    "tokens": 1024,
    "steps": 8,
    "flops": 4.06e8,
    "seconds": 1.5,
    "trainable_parameters": 10416,
}
COST = {
    "trunk_parameters": 10416,
    "recovery_parameters": 0,
    "other_parameters": 12,
    "ratio": 1.06,
    "steps": 16,
}


def content(**changes: Any) -> dict[str, Any]:
    """The fields of a record; ``changes`` replace some, entry by entry where they are objects."""
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "weights": {},
        "run": "hidden-0123456789ab",
        "created": "2026-01-01T00:00:00+00:00",
        "command": "dihal-bench run --backbone Qwen/Qwen3-0.6B --layer middle",
        "config": {
            **{"interface": "hidden", "seed": 7, "regime": "causal", "dtype": "float32"},
            **{"corpus": CORPUS, "budget": dict(BUDGET), "score": {"resamples": 100}},
            **{"include": [], "denoiser": {"name": "transformer"}},
        },
        "interface": {
            "name": "hidden",
            "origin": "dihal_bench.interfaces.hidden:Hidden",
            "controls": ["regress", "ridge"],
            "args": {"block": 0},
            "replaced": 3,
            "from": 1,
        },
        "regime": "causal",
        "layer": 4,
        "layer_policy": "middle",
        "backbone": {
            "name": "Qwen/Qwen3-0.6B",
            "fingerprint": "29a9c8",
            "blocks": 28,
            "parameters": 600000000,
            "architecture": "qwen3",
        },
        "corpus": {
            "name": CORPUS,
            "fingerprint": "c04876",
            "train_tokens": 22709,
            "val_tokens": 2919,
            "notes": {"repository": "allenai/dolma", "config": "v1_7", "revision": "abc"},
        },
        "budget": {**BUDGET, "within": True, "trunk": 1.0},
        "spent": {"hidden": {"diffusion": SPENT}, "regress": {"diffusion": SPENT}, "ridge": {}},
        "locate": {},
        "bridge": {
            "curves": {},
            "oracle": {
                **{"agreement": 1.0, "kl": 0.0, "sigma_half": None},
                **{"sigmas": [], "agreement_under_noise": []},
            },
            "progress": [],
        },
        "costs": {"hidden": COST},
        "scores": SCORES,
        "sums": SUMS,
        "tasks": {name: {"key": "k", "rows": []} for name in ("samples", "arc_easy")},
        "gates": {"leak": dict.fromkeys(("hidden", "regress", "ridge"), GATE)},
        "environment": {
            "versions": {"dihal-bench": "0.1.0", "torch": "2.13.0"},
            "git": "18c2fb1ecdf4+",
            "device": "cpu",
        },
    }
    for name, value in changes.items():
        data[name] = {**data[name], **value} if isinstance(value, dict) else value
    return data


def local_changes() -> dict[str, Any]:
    """What a record has other where backbone, corpus and code lie on somebody's disk."""
    home = f"/{PRIVATE_TEXT}"
    return {
        "backbone": {"name": f"{home}/models/small"},
        "corpus": {"name": f"{home}/my text.jsonl", "notes": {"files": 1}},
        "config": {
            "backbone": f"{home}/models/small",
            "corpus": f"{home}/my text.jsonl",
            "include": [f"{home}/own.py"],
        },
        "command": f"dihal-bench run --backbone {home}/models/small --config {home}/my.toml "
        f"--corpus '{home}/my text.jsonl' --set denoiser.sd-unet.vae={home}/vae",
        "scores": [{**s, "task": f"{home}/my text.jsonl:validation"} for s in SCORES[:12]],
    }


def finished(folder: Path, **changes: Any) -> Path:
    """A run's folder with what a run leaves there, and the files that nobody is to see."""
    record = Record.of(content(**changes))
    record.write(folder / "record.json")
    (folder / "config.json").write_text(json.dumps({**record.data["config"], "digest": "01"}))
    for name in ("weights/hidden", "weights/regress", "weights/ridge"):
        keep(folder / f"{name}.safetensors", name.encode() * 1000)
    for name in (
        "training-diffusion-hidden.safetensors",
        "shared/scores-1.safetensors",
        "samples/samples-hidden-S16.jsonl",
        "weights/notes.txt",
        ".lock",
        "inputs.json",
        "README.md",
    ):
        keep(folder / name, b"not for others")
    return folder


def keep(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
