"""Errands in this process, or in several of this machine, each with its share of the threads."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress, say, share_terminal
from dihal_bench.core.registry import EXECUTORS
from dihal_bench.runs.executor import Executor, WorkOutcome, at_least, option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.runs.inputs import Inputs
    from dihal_bench.runs.work_unit import WorkUnit

_held: list[Inputs] = []  # a worker's own


@EXECUTORS.register("local")
@dataclass(frozen=True, kw_only=True)
class LocalExecutor(Executor):
    """Processes of this machine.

    Attributes:
        workers: errands at a time, each in a process of its own; 1: in this process; None: 2 on a
            CPU of several threads (small products gain little from a second thread), else 1.
    """

    workers: int | None = option(
        None,
        "runs at a time, each with its share of the threads and memory of its own (default: 2 on a "
        "CPU of several threads, else 1)",
        parse=int,
    )

    def __post_init__(self) -> None:
        at_least(1, workers=self.workers)

    def check(self) -> None:
        """Nothing can be missing."""

    def work_off(self, errands: Sequence[WorkUnit], folder: Path, inputs: Inputs) -> None:
        """Do what is not done; lines of several processes begin with the errand's number."""
        places = [(errand, f"{n} of {len(errands)}") for n, errand in enumerate(errands, 1)]
        todo = [(errand, place) for errand, place in places if not errand.done]
        workers = min(self.workers or _suited(inputs), len(todo))
        outcome = WorkOutcome(len(todo))
        if workers > 1:
            _in_processes(todo, workers, outcome)
        else:
            _here(todo, inputs, outcome)
        outcome.close()


def _suited(inputs: Inputs) -> int:
    import torch

    return 2 if inputs.device.type == "cpu" and torch.get_num_threads() > 1 else 1


def _here(todo: Sequence[tuple[WorkUnit, str]], inputs: Inputs, outcome: WorkOutcome) -> None:
    for errand, place in todo:
        say(f"run {place}: {errand.title}")
        try:
            errand.perform(say, inputs)
        except UserError as error:
            outcome.fail(str(error))


def _in_processes(todo: Sequence[tuple[WorkUnit, str]], workers: int, outcome: WorkOutcome) -> None:
    import torch

    faults: list[BaseException] = []
    with (
        progress("runs", len(todo), unit="runs", alone=False) as bar,
        _threads(max(1, torch.get_num_threads() // workers)),
        ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
        ) as pool,
    ):
        futures = [pool.submit(_work, errand.to_dict(), place) for errand, place in todo]
        try:
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise UserError(
                        "a process of a run was killed, perhaps for want of memory; the same "
                        "command goes on, with fewer --workers it needs less."
                    ) from error
                if isinstance(error, UserError):
                    outcome.fail(str(error))
                elif error is not None:
                    faults.append(error)
                bar.update(1)
        except BaseException:  # also Ctrl-C: what has not begun shall not begin
            pool.shutdown(cancel_futures=True)
            raise
    if faults:
        raise faults[0]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let processes that are started meanwhile have that many threads, in all their libraries."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End the process when the command's was killed: else its run stays claimed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(content: Mapping[str, Any], place: str) -> None:
    from dihal_bench.runs.inputs import Inputs
    from dihal_bench.runs.work_unit import WorkUnit

    share_terminal(f"[{place}] ")
    errand = WorkUnit.from_dict(content)
    say(errand.title)
    config = errand.runs[0].config
    if not _held or not _held[0].serve(config):
        _held[:] = [Inputs(config, lambda text: None)]
    errand.perform(say, _held[0])
