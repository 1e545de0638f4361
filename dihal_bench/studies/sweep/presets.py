"""What a sweep spends on each of its runs, by preset: less than a final run, the same for all."""

from __future__ import annotations

from typing import Any

SWEEPS: dict[str, dict[str, Any]] = {
    "tiny": {
        "budget.name": "tiny-sweep",
        "budget.diffusion_tokens": 262_144,
        "budget.recovery_tokens": 131_072,
        "score.tokens": 12_288,
        "score.oracle_tokens": 1_024,
        "score.chains": 2,
        "controls": (),
    },
    "small": {
        "budget.name": "small-sweep",
        "budget.diffusion_tokens": 12_500_000,
        "budget.recovery_tokens": 6_250_000,
        "score.tokens": 100_000,
        "score.oracle_tokens": 1_024,
        "score.chains": 2,
        "controls": (),
    },
    "paper": {  # DiHAL, section 4.1: one epoch on nine tenths of 150K sequences
        "budget.name": "paper-sweep",
        "budget.diffusion_tokens": 69_120_000,
        "budget.recovery_tokens": 34_560_000,
        "score.tokens": 250_000,
        "score.oracle_tokens": 1_024,
        "score.chains": 2,
        "controls": (),
    },
}
