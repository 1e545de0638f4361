"""Many small jobs on all cores: records to be read, figures to be drawn."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from dihal_bench.core.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dihal_bench.core.progress import Progress

_T = TypeVar("_T")
_R = TypeVar("_R")


def spread(
    job: Callable[[_T], _R], items: Sequence[_T], *, label: str, least: int, chunk: int = 1
) -> list[_R]:
    """Return what a job makes of every item, in their order.

    Args:
        job: a function of a module that is quickly imported.
        items: that it takes.
        label: what they are called, for the bar.
        least: items from which on it pays to start other processes.
        chunk: items handed over at a time.

    Raises:
        Exception: what the job raises.
    """
    workers = min(len(os.sched_getaffinity(0)), len(items) // max(1, least // 2))
    with progress(label, len(items), unit=label) as bar:
        if len(items) < least or workers < 2:
            return list(_counted(map(job, items), bar))
        # Not forked: libraries of this process have threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return list(_counted(pool.map(job, items, chunksize=chunk), bar))


def _counted(results: Iterator[_R], bar: Progress) -> Iterator[_R]:
    for result in results:
        bar.update(1)
        yield result
