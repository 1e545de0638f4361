"""Evaluation of trained interfaces: the leak gate first, then every row on the same windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.errors import UserError
from dihal_bench.scoring.gate import leak_gates
from dihal_bench.scoring.likelihood import TEACHER, Row, score
from dihal_bench.scoring.table import scores_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.backbone.model import Backbone
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.records import Score
    from dihal_bench.scoring.gate import GateResult
    from dihal_bench.scoring.table import Measured
    from dihal_bench.text.tokens import PackedTokens


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What is scored, and how precisely.

    Attributes:
        tokens: validation tokens scored (whole windows).
        steps: network evaluations per chain S of the stochastic rows; the last is the headline.
        chains: parallel chains drawn per stochastic row, the largest ensemble.
        batch: windows per pass.
        resamples: bootstrap resamples over documents.
    """

    tokens: int = 24_576
    steps: tuple[int, ...] = (1, 16)
    chains: int = 8
    batch: int = 8
    resamples: int = 2000

    def __post_init__(self) -> None:
        if self.chains < 2 or self.chains & (self.chains - 1):
            raise UserError(f"score.chains={self.chains} must be a power of two, 2 or more.")
        if not self.steps or min(self.steps) < 1 or len(set(self.steps)) < len(self.steps):
            shown = ",".join(map(str, self.steps))
            raise UserError(f"score.steps={shown} must be different numbers, each 1 or more.")


def check_gates(interfaces: Mapping[str, Interface], data: PackedTokens) -> dict[str, GateResult]:
    """Run the leak gate on every interface's trained weights.

    Raises:
        UserError: one of them did not pass; the message says what moved.
    """
    results = leak_gates(interfaces, data)
    for name, result in results.items():
        if result.verdict != "pass":
            raise UserError(
                f"{name} did not pass the leak gate ({result.verdict}: logits before a changed "
                f"token moved by {result.future:.3g}, in another document or row by "
                f"{result.others:.3g}, from it on by {result.effect:.3g}), so no likelihood is "
                "written; make the interface causal or, if untrained, train it."
            )
    return results


def evaluate(
    interfaces: Mapping[str, Interface],
    data: PackedTokens,
    backbone: Backbone,
    config: ScoreConfig,
    measured: Measured,
) -> list[Score]:
    """Score the teacher, the interface at every number of steps, and the controls.

    Args:
        interfaces: by name; the first is the one that is benchmarked, which the others are
            compared with in pairs.
        data: the evaluation text.
        backbone: the teacher.
        config: what is scored.
        measured: what all scores have in common.
    """
    rows = {name: _rows(name, interface, config) for name, interface in interfaces.items()}
    totals = score(
        [Row(subject=TEACHER), *(row for some in rows.values() for row in some)],
        interfaces,
        data,
        backbone,
        windows=evaluation_windows(data, config.tokens),
        batch=config.batch,
    )
    stochastic = {name: interface.stochastic for name, interface in interfaces.items()}
    headline = next(iter(rows.values()))[-1]
    return scores_of(totals, stochastic, measured, reference=headline)


def _rows(name: str, interface: Interface, config: ScoreConfig) -> list[Row]:
    if interface.stochastic:
        return [Row(subject=name, steps=s, chains=config.chains) for s in config.steps]
    return [Row(subject=name, steps=config.steps[-1] if interface.iterative else 1)]


def evaluation_windows(data: PackedTokens, tokens: int) -> list[int]:
    """Choose evenly spaced windows with about ``tokens`` tokens; a function of the sizes alone.

    Raises:
        UserError: they lie in a single document, and intervals need several.
    """
    count = len(data)
    wanted = max(1, min(count, round(tokens / data.window)))
    windows = [int(index) for index in np.unique(np.linspace(0, count - 1, wanted).round())]
    if len(np.unique(data.batch(windows).documents)) < 2:
        raise UserError(
            f"score.tokens={tokens} are of a single validation document, and an interval needs "
            "several; give more, or text of more documents."
        )
    return windows
