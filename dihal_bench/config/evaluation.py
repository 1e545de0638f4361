"""What is scored, and how precisely."""

from __future__ import annotations

from dataclasses import dataclass

from dihal_bench.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What is scored, and how precisely.

    Attributes:
        tokens: validation tokens scored (whole windows).
        steps: network evaluations per chain S of the stochastic rows; the last is the headline.
        chains: parallel chains drawn per stochastic row, the largest ensemble.
        batch: windows per pass.
        resamples: bootstrap resamples over documents.
        oracle_tokens: about so many of them for the recovery under noise and for scores on the way.
        bound_draws: noise levels per block that its variational bound is estimated from.
        bound_snr: signal-to-noise ratio from which on a signal is decoded, in that bound.
    """

    tokens: int = 24_576
    steps: tuple[int, ...] = (1, 16)
    chains: int = 8
    batch: int = 8
    resamples: int = 2000
    oracle_tokens: int = 4_096
    bound_draws: int = 8
    bound_snr: float = 1.0

    def __post_init__(self) -> None:
        if self.chains < 2 or self.chains & (self.chains - 1):
            raise UserError(f"score.chains={self.chains} must be a power of two, 2 or more.")
        if not self.steps or min(self.steps) < 1 or len(set(self.steps)) < len(self.steps):
            shown = ",".join(map(str, self.steps))
            raise UserError(f"score.steps={shown} must be different numbers, each 1 or more.")
