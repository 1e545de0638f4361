"""The command line: ``dihal-bench VERB``. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, TextIO

from dihal_bench import __version__
from dihal_bench.cli import (
    backbone,
    check,
    claims,
    compare,
    generate,
    leaderboard,
    listing,
    locate,
    new,
    push,
    reproduce,
    run,
    score,
    speed,
    sweep,
    work,
)
from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.models.named import ACCEPTED

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERBS = (
    *(run, compare, sweep, score, generate, locate, claims, leaderboard, reproduce),
    *(speed, check, new, listing, backbone, push, work),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (2 for what the user has to mend)."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if terms := getattr(arguments, "accept_terms", None):
        os.environ[ACCEPTED] = terms  # for the processes that this one starts, too
    try:
        status = perform(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        broken = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream.fileno())]
        if not broken:  # it is no stream of this process
            raise
        return _unread(broken)
    return status


def _unread(broken: Sequence[TextIO]) -> int:
    """End as Unix tools do when the program that reads their output has ended, as ``head`` does."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in broken:
        os.dup2(nowhere, stream.fileno())  # else Python complains when it flushes at exit
    return 128 + signal.SIGPIPE


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def perform(arguments: argparse.Namespace) -> int:
    """Do the work of a verb; return the exit status."""
    parallel = getattr(arguments, "parallel", False)
    try:
        with distributed.joined(arguments.verb, parallel=parallel):
            status: int = arguments.work(arguments)
    except distributed.AlreadySaid:
        return 2
    except UserError as error:
        print(f"dihal-bench: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dihal-bench: interrupted; the same command continues.", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dihal-bench", description="Where should diffusion enter a pretrained language model?"
    )
    parser.add_argument("--version", action="version", version=f"dihal-bench {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in _VERBS:
        verb.add(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
