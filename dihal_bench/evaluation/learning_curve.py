"""Scores at shares of the budget: how much of it a result needed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from dihal_bench.core import distributed
from dihal_bench.evaluation.likelihood import Row
from dihal_bench.results.metrics import BRIER1, KL, NLL
from dihal_bench.training.checkpoint import load_phase
from dihal_bench.training.phases import kept_weights
from dihal_bench.training.trainer import SHARES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dihal_bench.config.evaluation import ScoreConfig
    from dihal_bench.evaluation.cache import ScoreCache
    from dihal_bench.interfaces.base import Interface

_METRICS = (NLL.at(1), BRIER1.key, KL.single)


def scores_on_the_way(
    interfaces: Mapping[str, Interface],
    file: Callable[[str, Interface, str], Path],
    scorer: ScoreCache,
    config: ScoreConfig,
) -> list[dict[str, Any]]:
    """Score all that was trained in a diffusion phase at 25, 50 and 100 % of it.

    Means per token over the given windows: NLL of single chains, Brier-1 and KL, at one step and at
    the headline's; the shares are of the diffusion phase, whose weights were averaged there.
    A share whose weights are not kept any more, as of a run that was moved, is left out.

    Args:
        interfaces: as they are at the end.
        file: name, interface, phase -> where the finished phase lies.
        scorer: what they are scored on.
        config: what is scored.
    """
    found = []
    for name, interface in interfaces.items():
        if interface.trunk is None:
            continue
        for share in (*SHARES, 1.0):
            then = _at(interface, file(name, interface, "diffusion"), share)
            if then is None:
                continue
            scored = scorer.score(_rows(name, then, config), {name: then})
            for row, totals in scored.items():
                metrics = _METRICS if then.likelihood else (BRIER1.key,)
                means = {m: float(totals.sums[m].sum() / totals.tokens.sum()) for m in metrics}
                found.append({"subject": name, "share": share, "steps": row.steps, **means})
    return found


def _at(interface: Interface, file: Path, share: float) -> Interface | None:
    if share == 1.0:
        return interface
    path = kept_weights(file, share)
    if not distributed.on_main(path.exists):
        return None
    then = copy.deepcopy(interface, {id(interface.backbone): interface.backbone})
    load_phase(path, then)
    return then


def _rows(name: str, interface: Interface, config: ScoreConfig) -> list[Row]:
    if not interface.stochastic:
        return [Row(subject=name, steps=config.steps[-1] if interface.iterative else 1)]
    return [
        Row(subject=name, steps=s, chains=1 if s == 1 and interface.diffusion.blind_start else 2)
        for s in dict.fromkeys((config.steps[0], config.steps[-1]))
    ]
