"""How errands are done: in this process, or in several of this machine."""

from __future__ import annotations

from typing import Any

from dihal_bench.execution.local import in_processes


def execution_flags(parser: Any) -> None:
    """Declare."""
    parser.add_argument("--workers", type=int, default=1)


class _Local:
    def __init__(self, workers: int):
        self.workers = workers

    def work_off(self, errands: Any, folder: Any, inputs: Any) -> None:
        in_processes(errands, inputs, workers=self.workers)


def executor_of(arguments: Any) -> Any:
    """Return."""
    return _Local(arguments.workers)
