"""Processes of a launch of which one fails, or is late; the other one waits for it."""

import argparse
import os
import sys
import time

from dihal_bench.cli.main import main as cli
from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError


def lost(_: argparse.Namespace) -> int:
    """Fail in one process."""
    if distributed.rank() == 1:
        raise UserError("this one has failed")
    distributed.barrier()
    return 0


def late(_: argparse.Namespace) -> int:
    """Let the other process wait for longer than it has patience."""
    if distributed.rank() == 1:
        time.sleep(float(os.environ["DIHAL_BENCH_TIMEOUT"]) + 2)
    distributed.barrier()
    return 0


if __name__ == "__main__":
    work = {"lost": lost, "late": late}[sys.argv[1]]
    distributed.leave(cli.perform(argparse.Namespace(verb="test", parallel=True, work=work)))
