"""The claims in the order of the page, each a function of the evidence."""

from __future__ import annotations

from dihal_bench.studies.claims.generation import generates
from dihal_bench.studies.claims.layers import carries_over, causes, predicts, shallow
from dihal_bench.studies.claims.stability import robust, stable

RULES = (predicts, shallow, generates, stable, robust, carries_over, causes)
