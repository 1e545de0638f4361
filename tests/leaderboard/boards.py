"""Boards with plausible numbers, of any size, and with markup in every text if it is asked for."""

import random
from collections.abc import Mapping
from typing import Any

MARKUP = '"><img src=x onerror="window.owned=1"><script>window.owned=1</script>{{7*7}}\'</script>'

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
COLUMNS: tuple[tuple[str, str, str | None, str, int, bool, str], ...] = (
    ("row", "Row", None, "text", 0, False, "What is scored."),
    ("rank", "Rank", "lower", "integer", 0, False, "Place by Brier-1 among interfaces."),
    ("kind", "Kind", None, "text", 0, False, "What a likelihood is the likelihood of."),
    ("steps", "S", None, "integer", 0, False, "Network evaluations per chain."),
    ("chains", "K", None, "integer", 0, False, "Chains of an ensemble."),
    ("brier1", "Brier-1", "higher", "estimate", 4, False, "2 p(x) - sum p(v)^2, at most 1."),
    ("nll", "NLL", "lower", "estimate", 3, True, "Negative log-likelihood, nats per token."),
    ("kl", "KL", "lower", "estimate", 4, False, "KL(teacher || row), nats per token."),
    ("gain", "Gain", "higher", "estimate", 4, True, "NLL of the best control minus the row's."),
    ("replaced", "Replaced", None, "integer", 0, False, "Blocks of the backbone replaced."),
    ("retained", "Retained", None, "integer", 0, False, "Blocks of the backbone kept."),
    ("flops", "Training", None, "flops", 0, False, "FLOPs of the whole training."),
    ("flop_ratio", "FLOP ratio", "lower", "number", 2, False, "Inference over replaced blocks."),
    ("seeds", "Seeds", None, "integer", 0, False, "Trainings that a row is the mean of."),
)
TASK_COLUMNS: tuple[tuple[str, str, str | None, str, int, bool, str], ...] = (
    ("row", "Row", None, "text", 0, False, "Whose samples they are."),
    ("steps", "S", None, "integer", 0, False, "Network evaluations per chain."),
    ("mauve", "MAUVE", "higher", "estimate", 3, False, "Closeness to real text."),
    ("gen_ppl", "Gen. PPL", None, "estimate", 1, False, "Perplexity by the judge."),
    ("entropy", "Entropy", None, "estimate", 2, False, "Of the tokens of a sample, nats."),
)
SPECS = (  # title, section, regime, budget, reason
    ("causal · tiny (524,288 diffusion tokens)", "matched", "causal", "tiny", ""),
    ("sequence · tiny (524,288 diffusion tokens)", "matched", "sequence", "tiny", ""),
    (
        "causal · custom (262,144 diffusion tokens)",
        "unmatched",
        "causal",
        "custom",
        "The runs spent other than their budget allows.",
    ),
)
LEGEND = (
    "† tied with rank 1: the paired interval of the difference to the first contains zero.",
    "‡ not converged: the NLL still falls by 0.02 nats as the chains double.",
)


def board(runs: int, *, seeds: int = 3, hostile: bool = False) -> dict[str, Any]:
    """A board of so many runs: a row in one step, one sampled and one of a control for each.

    Args:
        runs: how many.
        seeds: trainings that share a row.
        hostile: put markup into every text that is not an id or a name of the contract.
    """
    chance = random.Random(7)
    groups = [(start, min(start + seeds, runs)) for start in range(0, runs, seeds)]
    made: list[dict[str, Any]] = []
    tables = [_table(*spec) for spec in SPECS]
    for index, (start, stop) in enumerate(groups):
        place = (0, 0, 0, 0, 0, 1, 1, 2)[index % 8]
        table, entry = tables[place], INTERFACES[index % len(INTERFACES)]
        own = [_run(entry, table, seed, start + seed, chance) for seed in range(stop - start)]
        made += own
        table["rows"] += _rows(entry, [run["id"] for run in own], chance)
    for table in tables:
        _rank(table)
    tables.insert(2, _task_table(made))
    whole = {
        "version": 1,
        "generated_by": "dihal-bench 0.1.0",
        "tables": [table for table in tables if len(table["rows"]) > 1],
        "runs": made,
        "sweeps": [_sweep()],
    }
    return _poisoned(whole) if hostile else whole


def _columns(columns: tuple[tuple[Any, ...], ...]) -> list[dict[str, Any]]:
    names = ("key", "title", "better", "type", "digits", "likelihood", "help")
    return [dict(zip(names, column, strict=True)) for column in columns]


def _table(title: str, section: str, regime: str, budget: str, reason: str) -> dict[str, Any]:
    return {
        "id": f"bundled-{regime}-{budget}",
        "title": f"bundled · {title}",
        "section": section,
        "kind": "likelihood",
        "facts": {"backbone": "bundled", "corpus": "bundled", "task": "bundled:validation"}
        | {"regime": regime, "block": 0 if regime == "causal" else 16, "budget": budget}
        | {"diffusion_tokens": 524288, "recovery_tokens": 131072, "matched": "diffusion"}
        | {"tokens": 24433, "documents": 129},
        "columns": _columns(COLUMNS),
        "rows": [
            {
                "cells": {"row": "teacher", "interface": None, "role": "teacher", "kind": "exact"}
                | {"nll": _estimate(TEACHER[0], 0.095), "brier1": _estimate(TEACHER[1], 0.0135)}
                | {"rank": None, "flops": None, "retained": 8},
                "runs": [],
            }
        ],
        "legend": list(LEGEND),
        "reason": reason,
    }


def _estimate(value: float, half: float, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"value": value, "lo": value - half, "hi": value + half, "flags": list(flags)}


def _rows(entry: tuple[Any, ...], ids: list[str], chance: random.Random) -> list[dict[str, Any]]:
    name, layer, replaced, *levels = entry
    moved = chance.gauss(0, 0.002)
    label = f"{name} (layer={layer})" if name == "hidden" else name
    shared = {"interface": name, "replaced": replaced, "retained": 8 - replaced, "seeds": len(ids)}
    made = []
    for steps, chains, (nll, brier, kl, gain) in ((1, 1, levels[0]), (16, 8, levels[1])):
        flags = ("not converged",) if kl > 2 and chains > 1 else ()
        cells = {
            **shared,
            **{"row": label, "role": "interface", "kind": f"ensemble({chains})"},
            **{"steps": steps, "chains": chains, "nfe": steps * chains, "flops": FLOPS[name]},
            **{"nll": _estimate(nll - moved, 0.096, flags), "kl": _estimate(kl, kl / 2)},
            "brier1": _estimate(brier + moved, 0.0135),
            "gain": _estimate(gain, 0.0004 + abs(gain) / 20),
            "flop_ratio": 15.94 if steps > 1 else 1.02,
        }
        made.append({"cells": cells, "runs": ids})
    control, nll, brier, kl = CONTROLS[name]
    cells = {
        **shared,
        **{"row": control, "role": "control", "kind": "exact", "steps": 1, "chains": 1},
        **{"nll": _estimate(nll - moved, 0.096), "kl": _estimate(kl, kl / 2), "flops": 1.368e13},
        **{"brier1": _estimate(brier + moved, 0.0135), "flop_ratio": 1.0, "rank": None},
    }
    return [*made, {"cells": cells, "runs": ids}]


def _rank(table: dict[str, Any]) -> None:
    rows = [row["cells"] for row in table["rows"] if row["cells"]["role"] == "interface"]
    rows.sort(key=lambda cells: -cells["brier1"]["value"])
    for rank, cells in enumerate(rows, start=1):
        cells["rank"] = rank
        if 1 < rank <= 3:
            cells["brier1"]["flags"] = ["tied with rank 1"]
    order = {id(cells): place for place, cells in enumerate(rows)}
    last = len(rows)
    first = {"teacher": -1}
    table["rows"].sort(
        key=lambda row: order.get(id(row["cells"]), first.get(row["cells"]["role"], last))
    )


def _task_table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    table = _table("causal · samples", "matched", "causal", "tiny", "")
    first = {run["label"]: run["id"] for run in reversed(runs[:15])}
    rows = [
        {
            "cells": {"row": label, "interface": label.split(" ")[0], "role": "interface"}
            | {"kind": "estimate", "steps": 16, "chains": 1, "mauve": _estimate(0.91 - i / 9, 0.04)}
            | {"gen_ppl": _estimate(31.2 + 17 * i, 2.5), "entropy": _estimate(4.9 - i / 7, 0.03)},
            "runs": [run],
        }
        for i, (label, run) in enumerate(sorted(first.items()))
    ]
    teacher = {"row": "teacher", "role": "teacher", "kind": "estimate"} | {
        "mauve": _estimate(0.95, 0.02),
        "gen_ppl": _estimate(27.3, 1.9),
        "entropy": _estimate(5.02, 0.02),
    }
    return {
        **table,
        "id": "bundled-causal-tiny-samples",
        "kind": "task",
        "columns": _columns(TASK_COLUMNS),
        "facts": {**table["facts"], "task": "samples"},
        "rows": [{"cells": teacher, "runs": []}, *rows],
        "legend": [],
    }


def _run(
    entry: tuple[Any, ...], table: dict[str, Any], seed: int, number: int, chance: random.Random
) -> dict[str, Any]:
    name, layer, replaced, *_ = entry
    facts = table["facts"]
    run = f"{name}-{number:012x}"
    summary = {
        "id": f"{run}-{chance.getrandbits(32):08x}",
        "interface": name,
        "label": f"{name} (layer={layer})" if name == "hidden" else name,
        **{key: facts[key] for key in ("regime", "backbone", "corpus", "budget")},
        **{"seed": seed, "layer": layer, "replaced": replaced, "table": table["id"]},
        "created": "2026-11-24T12:00:00+00:00",
        "within": table["section"] == "matched",
    }
    return {**summary, "record": _record(summary, run, entry, facts, chance)}


def _record(
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
        "bridge": {
            **{"fvu_mmse": 0.00123, "fvu_sample": 0.00171, "steps": 16, "tokens": 12226},
            "oracle": {"agreement": 1.0, "kl": 1e-12, "sigmas": SIGMAS, "sigma_half": 11.7}
            | {"agreement_under_noise": [1 / (1 + (sigma / 12) ** 1.3) for sigma in SIGMAS]}
            | {"kl_under_noise": [0.0063 * sigma**2 for sigma in SIGMAS], "tokens": 1024},
            "progress": [
                {"subject": own, "share": share, "steps": 1, "nll@1": 3.52, "brier1": 0.2148}
                for share in (0.25, 0.5, 1.0)
            ],
            "curves": {own: _curves(chance, 0.03), control: _curves(chance, 0.05)},
        },
        "locate": _locate() if own == "hidden" else {},
        "environment": {"git": "5c14b748b422", "device": "cpu", "seed": seed, "threads": 1}
        | {"versions": {"dihal-bench": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.7"}},
        "excerpts": [
            {
                "prompt": "The function returns the",
                "real": " index of the first row whose value is at least as large as the given one.",
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
                "score": _estimate(scale * (3.9 - 0.42 * layer), 0.05),
                "curvature": _estimate(0.033 / layer**0.5, 0.001),
                "stiffness": _estimate(0.56 / layer**0.4, 0.01),
                "effective_rank": _estimate(9 + 0.8 * layer, 0.4),
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


def _sweep() -> dict[str, Any]:
    losses = {
        "fvu": (0.0382, 0.0753, 0.0974, 0.1365, 0.1581, 0.2128),
        "kl": (0.0926, 0.2240, 0.2955, 0.4205, 0.5062, 0.6397),
        "nll": (3.3292, 3.4411, 3.4968, 3.5980, 3.6654, 3.8638),
    }
    predictors: dict[str, list[float | None]] = {
        "score, raw": [3.41, 2.98, 2.61, 2.22, 1.93, 1.45],
        "score, matched": [5.70, 5.81, 5.92, 6.04, 6.11, 6.27],
        "ridge FVU": [-0.31, -0.24, -0.29, -0.35, -0.41, None],
    }
    taus = {"score, raw": 1.0, "score, matched": -0.47, "ridge FVU": -0.33}
    return {
        **{"id": "bundled-span-2", "title": "one bridge per layer l, blocks (l - 2, l] replaced"},
        **{"axis": "span-2", "backbone": "bundled", "layers": [2, 3, 4, 5, 6, 7]},
        "losses": {k: [_estimate(v, 0.04 * v) for v in values] for k, values in losses.items()},
        "predictors": predictors,
        "correlations": [
            {
                **{"predictor": predictor, "loss": loss, "kendall": _estimate(tau, 0.0)},
                **{"minus_depth": _estimate(tau - 1, 0.2), "picks": "2" if tau > 0 else "7"},
                "regret": 0.0 if tau > 0 else 0.4471,
            }
            for predictor, tau in taus.items()
            for loss in losses
        ],
    }


_SAFE = {"id", "table", "runs", "section", "key", "type", "better", "role"}
_OPEN = {"config", "options", "spent", "leak", "costs", "curves", "rows", "losses", "predictors"}
_OPEN |= {"versions", "facts", "cells"}  # whoever writes a record chooses the keys of these


def _poisoned(value: Any, *, at: str = "") -> Any:
    if isinstance(value, str):
        return value if at in _SAFE else f"{value}{MARKUP}"
    if isinstance(value, list):
        return [_poisoned(inner, at=at if at in _SAFE else "") for inner in value]
    if isinstance(value, dict):
        own = {key: _poisoned(inner, at=key) for key, inner in value.items()}
        return {**own, **{f"{key}{MARKUP}": own[key] for key in value if at in _OPEN}}
    return value
