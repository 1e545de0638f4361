"""The grid of a run: read once, kept beside what else the run has measured; and what it costs."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from dihal_bench.config.identity import settled
from dihal_bench.core.files import short_hash
from dihal_bench.geometry.anatomy import anatomy
from dihal_bench.geometry.seconds import resamples_seconds
from dihal_bench.studies.protocol_grid.grid import AXES, Grid, locate_grid
from dihal_bench.studies.protocol_grid.readings import NEIGHBOURS, RIDGES, SPACES, TOKENS

if TYPE_CHECKING:
    from dihal_bench.geometry.locate import LocateConfig
    from dihal_bench.runs.context import RunContext


def grid_of_run(job: RunContext) -> Grid:
    """Return every candidate layer's score under every protocol; what was read is kept."""
    config = job.config
    depends = [*job.rests_on, settled("locate", config.locate), config.seed, AXES]
    return locate_grid(
        job.inputs.backbone,
        job.inputs.training_text,
        config.locate,
        seed=config.seed,
        kept=job.shared / f"grid-{short_hash(depends)}",
        cache=job.cache,
        autocast=job.locates_under_autocast,
    )


@cache
def grid_seconds(config: LocateConfig, layers: int, dimensions: int) -> float:
    """Estimate the seconds of the grid at most: views that keep the same tokens are read once.

    Args:
        config: settings.
        layers: candidates.
        dimensions: of a state.
    """

    def one(states: torch.Tensor) -> object:
        return anatomy(
            states.double(), neighbours=NEIGHBOURS, ridges=RIDGES, pairs=config.pairs, seed=0
        )

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the grid is read: a matrix per thread
    try:
        seconds = resamples_seconds(config, dimensions, one)
    finally:
        torch.set_num_threads(threads)
    return len(TOKENS) * len(SPACES) * layers * seconds / threads
