"""Errands in this process, or in several of this machine, each with its share of the threads."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

import torch

from dihal_bench.environment import keep_freed_memory
from dihal_bench.errors import UserError
from dihal_bench.inputs import Inputs
from dihal_bench.progress import say, share_terminal
from dihal_bench.registry import include

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.execution.errand import Errand

_held: list[Inputs] = []  # a worker's own


def in_processes(errands: Sequence[Errand], inputs: Inputs, *, workers: int) -> None:
    """Do all errands, ``workers`` at a time; one at a time in this process.

    Raises:
        UserError: one cannot be done, or its process was killed. Those under way are done to their
            end first.
    """
    numbered = [(errand, f"{n} of {len(errands)}") for n, errand in enumerate(errands, 1)]
    todo = [(errand, place) for errand, place in numbered if not errand.done]
    if min(workers, len(todo)) <= 1:
        for errand, place in todo:
            say(f"run {place}: {errand.title}")
            errand.perform(say, inputs)
        return
    threads = max(1, torch.get_num_threads() // workers)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(inputs.config.include, threads),
    )
    try:
        futures = [pool.submit(_work, errand, place) for errand, place in todo]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        pool.shutdown(cancel_futures=True)
        for future in done:
            future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process of a run was killed, perhaps for want of memory; the same command goes on, "
            "with fewer --workers it needs less."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(files: Sequence[str], threads: int) -> None:
    for path in files:
        include(path)  # settings of an included interface are of a class of its file
    torch.set_num_threads(threads)
    keep_freed_memory()


def _work(errand: Errand, place: str) -> None:
    share_terminal(f"[{place}] ")
    say(errand.title)
    if not _held:
        _held.append(Inputs(errand.runs[0].config, lambda text: None))
    errand.perform(say, _held[0])
