"""Pieces of work, timed and counted: seconds, FLOPs, bytes moved, operations, waits, memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dihal_bench.training.ledger import count_flops

if TYPE_CHECKING:
    from collections.abc import Callable

    Clock = Callable[[], float]

_ENOUGH, _LONG = 0.25, 1.0  # seconds of repeats; of work that is not repeated
_REPEATS = 4


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a piece of work takes; pieces are added, and multiplied by how often they are done.

    Attributes:
        seconds: of the machine that it was timed on.
        tokens: that it treats.
        flops: floating-point operations of its products.
        moved: bytes that its operations read and write, each for itself.
        operations: on tensors; on an accelerator each is launched by itself.
        waits: times that the host reads a value off the device.
        peak: bytes of tensors at most, beyond those that were there before.
    """

    seconds: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0
    moved: float = 0.0
    operations: float = 0.0
    waits: float = 0.0
    peak: float = 0.0

    def __add__(self, other: Work) -> Work:
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMS}
        return Work(**sums, peak=max(self.peak, other.peak))

    def __mul__(self, times: float) -> Work:
        return Work(**{name: getattr(self, name) * times for name in _SUMS}, peak=self.peak)

    __rmul__ = __mul__

    def __sub__(self, part: Work) -> Work:
        """Return the rest, nowhere less than nothing: both were timed, so they may cross."""
        rest = {name: max(0.0, getattr(self, name) - getattr(part, name)) for name in _SUMS}
        return Work(**rest, peak=self.peak)


_SUMS = tuple(field.name for field in fields(Work) if field.name != "peak")


def clock_of(device: torch.device) -> Clock:
    """Return what tells the seconds of work on a device.

    On a CPU it is the time that this thread computes. It takes part in all parallel work, so on an
    idle machine this is the wall time, and on a busy one others' work is left out.
    """
    if device.type == "cpu":
        return time.thread_time

    def synchronised() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return synchronised


@dataclass(frozen=True)
class Timer:
    """Times pieces of work on a device.

    Attributes:
        device: where tensors lie.
        clock: seconds so far.
        counts: whether FLOPs, bytes and operations are counted too, in a run of its own.
    """

    device: torch.device
    clock: Clock
    counts: bool = False

    @classmethod
    def on(cls, device: torch.device, *, counts: bool = False) -> Timer:
        """Return the timer of a device."""
        return cls(device, clock_of(device), counts)

    def time(self, work: Callable[[], object], *, tokens: float = 0, memory: bool = False) -> Work:
        """Do some work a few times; return the smallest time of it.

        Args:
            work: can be repeated.
            tokens: that it treats.
            memory: whether its peak is measured, which takes a first run of its own.
        """
        peak = peak_bytes(work, self.device) if memory else 0
        counted = count(work) if self.counts else Work()
        times: list[float] = []
        while len(times) < _REPEATS and sum(times) < (_ENOUGH if times[1:] else _LONG):
            start = self.clock()
            work()
            times.append(self.clock() - start)
        return counted + Work(seconds=min(times), tokens=tokens, peak=peak)


def count(work: Callable[[], object]) -> Work:
    """Do some work once and return what it takes besides time."""
    with _Traffic() as traffic:
        flops = count_flops(work)
    return Work(
        flops=flops, moved=traffic.moved, operations=traffic.operations, waits=traffic.waits
    )


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, the bytes of their operands and results, and reads of single values."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moved = self.operations = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.waits += func.overloadpacket is torch.ops.aten._local_scalar_dense
        if not _is_view(func):
            self.operations += 1
            self.moved += sum(map(_bytes, (*args, *kwargs.values(), result)))
        return result


def _is_view(func: Any) -> bool:
    """Return whether an operation gives another look at a tensor, for which nothing moves."""
    aliases = [value.alias_info for value in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Do some work once and return the most bytes of tensors that it held beyond those before."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler writes lines of its own
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU, *([activity.CUDA] if device.type == "cuda" else [])]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as seen:
        work()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]" and _of(event, device):
            held += event.nbytes()
            most = max(most, held)
    return most


def _of(event: Any, device: torch.device) -> bool:
    return str(event.device_type()).rpartition(".")[2].lower() == device.type


def product_speed(device: torch.device, dtype: torch.dtype, clock: Clock | None = None) -> float:
    """Return the FLOP/s of a large matrix product: the ceiling of what is computed by products."""
    clock = clock or clock_of(device)
    side = 1024 if device.type == "cpu" else 8192
    a = torch.randn(side, side, device=device).to(dtype)
    timer = Timer(device, clock)
    return 2 * side**3 / max(timer.time(lambda: a @ a).seconds, 1e-12)


def stream_speed(device: torch.device, clock: Clock | None = None) -> float:
    """Return the bytes per second that a reduction reads: the ceiling of what only reads memory."""
    values = torch.ones(2**26, device=device)
    timer = Timer(device, clock or clock_of(device))
    return 4 * 2**26 / max(timer.time(values.sum).seconds, 1e-12)
