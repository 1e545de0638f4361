"""Do the runs of a comparison, several at a time; what is done already is not done again."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

import torch

from dihal_bench.comparison.plan import BLOCKS
from dihal_bench.environment import keep_freed_memory
from dihal_bench.errors import UserError
from dihal_bench.inputs import Inputs
from dihal_bench.job import run
from dihal_bench.progress import say, share_terminal
from dihal_bench.registry import include

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dihal_bench.comparison.plan import Entry

_held: list[Inputs] = []  # a worker's own


def work_off(
    entries: Sequence[Entry], inputs: Inputs, shared: Path, *, command: str, workers: int
) -> None:
    """Do every run that is not done yet.

    Args:
        entries: of the comparison.
        inputs: backbone and text, for runs in this process.
        shared: folder of what runs have in common.
        command: the command line, for the records.
        workers: runs at a time, each in a process of its own with its share of the threads; 1: in
            this process.

    Raises:
        UserError: a run cannot be done, or a process of a run was killed. Runs under way are done
            to their end first.
    """
    distinct = {entry.folder: entry for entry in reversed(entries)}  # the first of equal ones
    todo = []
    for number, folder in enumerate(dict.fromkeys(entry.folder for entry in entries), start=1):
        entry = distinct[folder]
        title = f"{entry.label}, seed {entry.config.seed}, {BLOCKS[entry.block].title}"
        if not (folder / "record.json").exists():
            todo.append((entry, f"{number} of {len(distinct)}", title))
    if min(workers, len(todo)) <= 1:
        for entry, place, title in todo:
            say(f"run {place}: {title}")
            _run(entry, shared, command, inputs)
        return
    threads = max(1, torch.get_num_threads() // workers)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(inputs.config.include, threads),
    )
    try:
        futures = [pool.submit(_work, *one, shared, command) for one in todo]
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


def _work(entry: Entry, place: str, title: str, shared: Path, command: str) -> None:
    share_terminal(f"[{place}] ")
    say(title)
    if not _held:
        _held.append(Inputs(entry.config, lambda text: None))
    _run(entry, shared, command, _held[0])


def _run(entry: Entry, shared: Path, command: str, inputs: Inputs) -> None:
    run(entry.config, out=entry.folder, shared=shared, inputs=inputs, command=command, say=say)
