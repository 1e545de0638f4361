"""Boards with plausible numbers, of any size, and with markup in every text if it is asked for."""

import random
from typing import Any

from .board_records import CONTROLS, FLOPS, INTERFACES, TEACHER, estimate, record

MARKUP = '"><img src=x onerror="window.owned=1"><script>window.owned=1</script>{{7*7}}\'</script>'

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
                | {"nll": estimate(TEACHER[0], 0.095), "brier1": estimate(TEACHER[1], 0.0135)}
                | {"rank": None, "flops": None, "retained": 8},
                "runs": [],
            }
        ],
        "legend": list(LEGEND),
        "reason": reason,
    }


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
            **{"nll": estimate(nll - moved, 0.096, flags), "kl": estimate(kl, kl / 2)},
            "brier1": estimate(brier + moved, 0.0135),
            "gain": estimate(gain, 0.0004 + abs(gain) / 20),
            "flop_ratio": 15.94 if steps > 1 else 1.02,
        }
        made.append({"cells": cells, "runs": ids})
    control, nll, brier, kl = CONTROLS[name]
    cells = {
        **shared,
        **{"row": control, "role": "control", "kind": "exact", "steps": 1, "chains": 1},
        **{"nll": estimate(nll - moved, 0.096), "kl": estimate(kl, kl / 2), "flops": 1.368e13},
        **{"brier1": estimate(brier + moved, 0.0135), "flop_ratio": 1.0, "rank": None},
    }
    return [*made, {"cells": cells, "runs": ids}]


def _rank(table: dict[str, Any]) -> None:
    rows = [row["cells"] for row in table["rows"] if row["cells"]["role"] == "interface"]
    rows.sort(key=lambda cells: -cells["brier1"]["value"])
    for rank, cells in enumerate(rows, start=1):
        cells["rank"] = rank
        if 1 < rank <= 3:
            cells["brier1"]["flags"] = ["tied with rank 1"]
    for row in table["rows"]:
        tied = row["cells"].get("rank") == 1
        row["ties"] = [cells["row"] for cells in rows[1:3]] if tied else []
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
            | {"kind": "estimate", "steps": 16, "chains": 1, "mauve": estimate(0.91 - i / 9, 0.04)}
            | {"gen_ppl": estimate(31.2 + 17 * i, 2.5), "entropy": estimate(4.9 - i / 7, 0.03)},
            "runs": [run],
        }
        for i, (label, run) in enumerate(sorted(first.items()))
    ]
    teacher = {"row": "teacher", "role": "teacher", "kind": "estimate"} | {
        "mauve": estimate(0.95, 0.02),
        "gen_ppl": estimate(27.3, 1.9),
        "entropy": estimate(5.02, 0.02),
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
    return {**summary, "record": record(summary, run, entry, facts, chance)}


def _sweep() -> dict[str, Any]:
    losses = {
        "fvu_mmse": (0.0382, 0.0753, 0.0974, 0.1365, 0.1581, 0.2128),
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
        "losses": {
            name: {"title": name.upper(), "cells": [estimate(v, 0.04 * v) for v in values]}
            for name, values in losses.items()
        },
        "predictors": predictors,
        "correlations": [
            {
                **{"predictor": predictor, "loss": loss, "kendall": estimate(tau, 0.0)},
                **{"minus_depth": estimate(tau - 1, 0.2), "picks": "2" if tau > 0 else "7"},
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
