"""From the rates of its parts to the cost of a run: how often each is done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dihal_bench.core.registry import INTERFACES
from dihal_bench.evaluation.evaluate import curve_rows, score_rows, trial_rows
from dihal_bench.evaluation.gate import tested_bytes, tested_tokens
from dihal_bench.evaluation.reconstruction import SIGMAS
from dihal_bench.evaluation.rescoring import rescored_share
from dihal_bench.geometry.crossfit import crossed_layers
from dihal_bench.geometry.pool import gram_bytes, shares
from dihal_bench.interfaces.settings import PHASES
from dihal_bench.runs.timing import Work
from dihal_bench.training.trainer import SHARES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dihal_bench.evaluation.likelihood import Row
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.runs.context import RunContext
    from dihal_bench.runs.rates import Rates

Memory = dict[str, dict[str, float]]

_LIBRARIES = 2**29  # bytes
_GATE_STEPS = 4  # of the leak gate's chains
_GATE_SLOWER = 2.0  # float64 than float32


def teaching(job: RunContext, rates: Rates, tokens: Mapping[str, Mapping[str, int]]) -> Work:
    """Return what the teacher's passes over the training text take, which runs may share.

    Args:
        job: of the run.
        rates: of its parts.
        tokens: name -> phase -> tokens.
    """
    total, window = Work(), job.config.text.window
    for phase, own in rates.phases.items():
        budgets = {plan[phase] for name, plan in tokens.items() if plan.get(phase)}
        total += sum(budgets) / window * own.teacher
    return total


def parts_of(
    job: RunContext,
    rates: Rates,
    interfaces: Mapping[str, Interface],
    tokens: Mapping[str, Mapping[str, int]],
) -> dict[str, Work]:
    """Return what the parts of a run take besides locating and the teacher's training passes.

    Args:
        job: of the run.
        rates: of its parts.
        interfaces: all of its own, by name.
        tokens: name -> phase -> tokens; of those that are not trained and scored elsewhere.
    """
    config = job.config
    windows = config.score.tokens // config.text.window or 1
    part = math.ceil(windows / max(1, windows * config.text.window // config.score.oracle_tokens))
    collected = min(1, len(tokens)) * config.budget.diffusion_tokens // config.text.window
    scored = windows * _scored(job, rates, interfaces, tokens)
    return {
        "statistics": collected * rates.statistics + min(1, collected) * rates.solving,
        "training": _training(job, rates, tokens),
        "gate": _gate(job, rates, tokens, scored),
        "scoring": scored,
        "recovery": _recovery(job, rates, windows, part),
        "scores on the way": part * _on_the_way(job, rates, interfaces, tokens),
    }


def _training(job: RunContext, rates: Rates, tokens: Mapping[str, Mapping[str, int]]) -> Work:
    total, window, batch = Work(), job.config.text.window, job.config.train.batch
    for name, plan in tokens.items():
        for phase in PHASES:
            if plan.get(phase):
                own, windows = rates.phases[phase], plan[phase] / window
                total += windows * own.learn[name] + windows / batch * own.update[name]
    return total


def _gate(job: RunContext, rates: Rates, names: Collection[str], scored: Work) -> Work:
    """What both tests take: tokens that are changed, and a part of what was scored done again."""
    backbone, total = job.inputs.backbone, Work()
    for name in names:
        own, trained = rates.scoring[name], bool(INTERFACES.get(name).phases)
        tokens = tested_tokens(backbone, job.config.text.window, trained=trained)
        each = own.fixed + _GATE_STEPS * own.evaluation + own.recovery
        total += tokens / job.config.text.window * _GATE_SLOWER * each
    return total + rescored_share(backbone.info.parameters) * scored


def _scored(
    job: RunContext,
    rates: Rates,
    interfaces: Mapping[str, Interface],
    names: Collection[str],
) -> Work:
    """What the rows of the table take for a window."""
    total, score = rates.shared, job.config.score
    first = job.names[0]
    for name in names:
        rows = score_rows(interfaces[name], name, steps=score.steps, chains=score.chains)
        rows += trial_rows(rows[-1], interfaces[name]) if name == first else []
        total += _rows(rates, name, rows)
    return total


def _recovery(job: RunContext, rates: Rates, windows: int, part: int) -> Work:
    """What signals of true text take: rebuilt, recovered, and recovered under noise."""
    noised = rates.shared + (1 + len(SIGMAS)) * rates.scoring[job.names[0]].recovery
    return windows * rates.reconstruction + part * noised


def _on_the_way(
    job: RunContext,
    rates: Rates,
    interfaces: Mapping[str, Interface],
    names: Collection[str],
) -> Work:
    total = Work()
    for name in names:
        if interfaces[name].trunk is not None:
            rows = curve_rows(name, interfaces[name], job.config.score)
            total += (1 + len(SHARES)) * (rates.shared + _rows(rates, name, rows))
    return total


def _rows(rates: Rates, name: str, rows: Collection[Row]) -> Work:
    total = Work()
    for row in rows:
        total += rates.scoring[name].row(row)
    return total


def memory_of(job: RunContext, rates: Rates) -> Memory:
    """Return the bytes that each phase of a run holds at most, by what they are of."""
    backbone, config, size = job.inputs.backbone, job.config, job.inputs.backbone.hidden_size
    table, window = backbone.vocab_size * size, config.text.window
    score, micro = config.score, min(config.train.batch, config.train.micro)
    states = [sum(own.state.values()) for own in rates.phases.values()]
    passes = [
        own.teacher.peak + max(work.peak for work in own.learn.values())
        for own in rates.phases.values()
    ]
    rows = [own.recovery.peak for own in rates.scoring.values()]
    found: Memory = {
        "statistics": {"sums": 3 * 8 * size**2 + 20 * table},
        "training": {
            "trunks, gradients, optimiser": max(states, default=0.0),
            "pass": micro * max(passes, default=0.0),
        },
        "gate": {
            "float64 weights": rates.weights * 8 / backbone.model.dtype.itemsize,
            "logits": tested_bytes(backbone, window),
        },
        "scoring": {
            "pass": score.batch * max(rates.shared.peak, *rows),
            "fresh process": sum(base_memory(rates.weights).values()),
        },
    }
    return {phase: {**base_memory(rates.weights), **own} for phase, own in found.items()}


def base_memory(weights: float) -> dict[str, float]:
    """Return what every phase holds: libraries, and the backbone's weights in bytes."""
    return {"libraries": float(_LIBRARIES), "weights": weights}


def located_memory(job: RunContext) -> float:
    """Return the bytes of sampled rows, twice, of covariances, and of a pool's inner products."""
    config, backbone = job.config.locate, job.inputs.backbone
    layers, size = list(range(1, backbone.blocks)), backbone.hidden_size
    kept = config.windows * config.per_window
    shared = shares((kept, size), [config.sample] * config.resamples)
    rows, sums = kept * len(layers) * size * 4, len(crossed_layers(layers, size)) * size**2 * 8
    return float(2 * rows + sums + shared * gram_bytes(kept))
