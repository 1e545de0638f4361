"""Several processes for one run, on one machine or on many: who they are, what they exchange.

``torchrun`` and ``accelerate launch`` start the same command in every process and say in
environment variables which one it is. All of them take the same way through the program. Work is
dealt to them (``turns``) and its results are put together again; what is decided by a look at the
disk is decided by the main process (``on_main``), which alone writes, holds locks, and speaks.

Without a launcher every function here is the identity, and torch.distributed is not even imported.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

_T = TypeVar("_T")
_SECONDS = "DIHAL_BENCH_TIMEOUT"
_PATIENCE = 3600.0  # seconds that a process waits for the others: one may tokenise a corpus
_GRACE = 3.0  # seconds that a process which fails waits for the main one to fail as well


class AlreadySaid(UserError):
    """The end of a process whose cause another process tells."""


@dataclass
class _World:
    """This process among the others.

    Attributes:
        rank: its number; 0 is the main process.
        size: how many there are.
        local_rank: its number on its machine.
        store: where the processes leave notes for each other.
        writes: whether it may write files now.
        current: this process's own, while it is one of several.
    """

    current: ClassVar[_World | None] = None

    rank: int
    size: int
    local_rank: int
    store: Any
    writes: bool

    def first_to_fail(self) -> bool:
        """Return whether no other process has announced its end; announce this one's.

        A launcher stops all processes when one ends: the main one, if it fails too, is given the
        time to leave everything in order, and to be the first.
        """
        try:
            if self.rank != 0:
                with contextlib.suppress(RuntimeError):
                    self.store.wait(["main"], datetime.timedelta(seconds=_GRACE))
            first = int(self.store.add("failed", 1)) == 1
            if self.rank == 0:
                self.store.set("main", "failed")
            return first
        except RuntimeError:  # the store went down with the process that kept it
            return self.rank == 0


def launched() -> bool:
    """Return whether a launcher has started several processes, of which this is one."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def joined(verb: str, *, parallel: bool) -> Iterator[None]:
    """Be one of the launched processes for a while, if there are any.

    The processes wait for each other for an hour at most, or for ``$DIHAL_BENCH_TIMEOUT`` seconds.

    Args:
        verb: what is done, for the message.
        parallel: whether several processes can do it together.

    Raises:
        UserError: they cannot, or the work raised it, in the process that is to tell it.
        AlreadySaid: the same in the others, also where they have lost a process that failed.
    """
    if not launched():
        yield
        return
    if not parallel:
        raise _once(
            f"dihal-bench {verb} is done by one process; start it without torchrun or accelerate."
        )
    import torch.distributed as dist

    world = _World.current = _join()
    quiet = contextlib.nullcontext() if is_main() else contextlib.redirect_stdout(_nowhere())
    try:
        with quiet:
            yield
    except UserError as error:
        if world.first_to_fail():
            raise
        raise AlreadySaid from error
    except RuntimeError as error:  # of a library that waited for a process which has failed
        if world.first_to_fail():
            raise
        raise AlreadySaid from error
    except KeyboardInterrupt:
        if is_main():
            raise
        raise AlreadySaid from None
    else:
        barrier()
        dist.destroy_process_group()
    finally:
        _World.current = None


def leave(status: int) -> NoReturn:
    """End this process, if it is one of several before Python takes itself down.

    Gloo's threads may still hold tensors, and one that lets go of them while the interpreter goes
    aborts a process whose work is done (https://github.com/pytorch/pytorch/pull/179291).
    """
    if not launched():
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _join() -> _World:
    """Meet the other processes."""
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    given = os.environ.get(_SECONDS, str(_PATIENCE))
    try:
        patience = datetime.timedelta(seconds=float(given))
    except ValueError as error:
        raise _once(f"{_SECONDS}={given}: give a number of seconds, such as 600.") from error
    with reached():
        store, rank, size = next(rendezvous("env://", timeout=patience))
        store.set_timeout(patience)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore("exchange", store),
            rank=rank,
            world_size=size,
            timeout=patience,
        )
    local = int(os.environ.get("LOCAL_RANK", rank))
    return _World(rank, size, local, PrefixStore("notes", store), writes=rank == 0)


def _once(message: str) -> UserError:
    """Return what all processes raise before they have met, with one of them to tell it."""
    return UserError(message) if os.environ["RANK"] == "0" else AlreadySaid()


def _nowhere() -> Any:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


@contextlib.contextmanager
def reached() -> Iterator[None]:
    """Turn the failure of an exchange into a sentence."""
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"a process of this run has ended, or cannot be reached ({said}); issue the same "
            "command again, it goes on from the last checkpoint."
        ) from error


# --- who ------------------------------------------------------------------------------------------


def rank() -> int:
    """Return this process's number, from 0."""
    return _World.current.rank if _World.current else 0


def size() -> int:
    """Return how many processes there are."""
    return _World.current.size if _World.current else 1


def is_main() -> bool:
    """Return whether this process decides, writes and speaks."""
    return rank() == 0


def writes() -> bool:
    """Return whether this process may write files now."""
    return _World.current is None or _World.current.writes


def device(name: str) -> str:
    """Return the device of this process: of several on one machine each has a GPU of its own.

    Raises:
        UserError: one GPU is named for all of them.
    """
    if _World.current is None or not name.startswith("cuda"):
        return name
    if name != "cuda":
        raise UserError(
            f"--device {name} is one GPU, and {size()} processes take one each; give --device cuda."
        )
    return f"cuda:{_World.current.local_rank}"


# --- in turn --------------------------------------------------------------------------------------


def on_main(work: Callable[[], _T]) -> _T:
    """Return what ``work`` returns in the main process, which alone does it.

    Raises:
        UserError: it raised that, in all processes.
    """
    if _World.current is None:
        return work()
    found: list[Any] = [None, None]
    if is_main():
        try:
            found[0] = work()
        except UserError as error:
            found[1] = str(error)
    value, complaint = from_main(found)
    if complaint is not None:
        raise UserError(complaint)
    result: _T = value
    return result


def from_main(value: _T) -> _T:
    """Return the main process's ``value``, whatever this one's is."""
    if _World.current is None:
        return value
    import torch.distributed as dist

    box = [value]
    with reached():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Wait until all processes are here: what the main process wrote before lies there now."""
    from_main(None)
    gather([None])


@contextlib.contextmanager
def first_on_machine() -> Iterator[None]:
    """Let one process of every machine do it first, and write; the others find it done."""
    world = _World.current
    if world is None:
        yield
        return
    may, world.writes = world.writes, True
    try:
        if world.local_rank != 0:
            gather([None])
        yield
        if world.local_rank == 0:
            gather([None])
    finally:
        world.writes = may


# --- together -------------------------------------------------------------------------------------


def turns(items: Sequence[_T]) -> Iterator[tuple[_T, bool]]:
    """Yield what this process is to do of ``items``, in order: a run of neighbours.

    All processes take equally many turns, as the passes of a teacher that is spread over them must
    be: where items are left over, a process does one that another does as well.

    Yields:
        An item, and whether its result counts.
    """
    first, end = (-(-len(items) * place // size()) for place in (rank(), rank() + 1))
    for turn in range(first, first + -(-len(items) // size())):
        yield items[min(turn, len(items) - 1)], turn < end


def gather(items: Sequence[_T]) -> list[_T]:
    """Return the items of all processes, those of process 0 first."""
    if _World.current is None:
        return list(items)
    import torch.distributed as dist

    boxes: list[Any] = [None] * size()
    with reached():
        dist.all_gather_object(boxes, list(items))
    return [item for box in boxes for item in box]


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows [n, ...] of all processes, those of process 0 first."""
    if _World.current is None:
        return rows
    import torch
    import torch.distributed as dist

    counts = gather([len(rows)])
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    boxes = [torch.empty_like(padded) for _ in counts]
    with reached():
        dist.all_gather(boxes, padded)
    return torch.cat([box[:count] for box, count in zip(boxes, counts, strict=True)])


def add_up(*tensors: Tensor) -> None:
    """Add to contiguous tensors, in place, those of the other processes."""
    if _World.current is None:
        return
    import torch.distributed as dist

    for tensor in tensors:
        with reached():
            dist.all_reduce(tensor)


def copy_main(*tensors: Tensor) -> None:
    """Make tensors, in place, what they are in the main process."""
    if _World.current is None:
        return
    import torch.distributed as dist

    for tensor in tensors:
        same = tensor.detach().contiguous()
        with reached():
            dist.broadcast(same, src=0)
        tensor.detach().copy_(same)
