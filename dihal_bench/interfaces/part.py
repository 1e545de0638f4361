"""A batch that several processes share: what its losses need to know of the others' windows.

One process takes a step in passes of ``train.micro`` windows, and a loss is a mean over the places
of a pass. Where processes share a pass, each has some of its windows, and the same mean needs the
number of places in all of them.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dihal_bench.core import distributed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(frozen=True)
class MicrobatchShard:
    """A pass of which neighbouring processes have equal numbers of windows.

    Attributes:
        size: how many processes.
        first: the rank of the one that has the first windows.
        group: torch's handle of them.
        current: the one that this process's batches belong to now; None: they are whole passes.
    """

    current: ClassVar[MicrobatchShard | None] = None

    size: int
    first: int
    group: Any

    @classmethod
    def of(cls, sharers: int) -> MicrobatchShard | None:
        """Return this process's part where ``sharers`` at a time share one; None: it is alone."""
        if sharers == 1:
            return None
        return cls(sharers, distributed.rank() // sharers * sharers, _group(sharers))


@functools.cache
def _group(sharers: int) -> Any:
    """Connect processes, ``sharers`` neighbours at a time; all of them ask at the same time."""
    import torch.distributed as dist

    with distributed.reached():
        group, _ = dist.new_subgroups(group_size=sharers)  # type: ignore[no-untyped-call]
    return group


@contextlib.contextmanager
def sharing(part: MicrobatchShard | None) -> Iterator[None]:
    """Let the batches of a while be this process's windows of a part."""
    MicrobatchShard.current = part
    try:
        yield
    finally:
        MicrobatchShard.current = None


def mean_of_part(total: Tensor, count: Tensor) -> Tensor:
    """Return ``total / count`` of a batch; of a shared part, what gives its mean on average.

    Every process of the part must ask for the same means in the same order.

    Args:
        total: sum over this process's places, [].
        count: how many there are, [].
    """
    part = MicrobatchShard.current
    if part is None:
        return total / count.clamp(min=1)
    import torch.distributed as dist

    everywhere = count.detach().clone()
    with distributed.reached():
        dist.all_reduce(everywhere, group=part.group)
    return part.size * total / everywhere.clamp(min=1)


def leading(value: Tensor) -> Tensor:
    """Return ``value``; of a shared part, that of the process which has its first windows."""
    part = MicrobatchShard.current
    if part is None:
        return value
    import torch.distributed as dist

    theirs = value.detach().clone()
    with distributed.reached():
        dist.broadcast(theirs, src=part.first, group=part.group)
    return theirs
