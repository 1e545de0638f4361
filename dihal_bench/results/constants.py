"""Limits of scoring that those who read its results hold them against."""

from __future__ import annotations

TOLERANCE = 1e-10  # of a logit, in float64, that moves and counts as unmoved
LOOSEST = {  # arithmetic -> largest tolerance under which a leak gate says anything
    "float64": TOLERANCE,
    "float32": 1e-2,  # roundings of a logit
    "float16": 0.5,
    "bfloat16": 0.5,
}
CONVERGED = 0.02  # nats between half the chains and all of them
LEAST_SEEDS = 3  # trainings for a rank or a verdict: the spread of fewer is not known
