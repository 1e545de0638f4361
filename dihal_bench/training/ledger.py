"""What training really spends, measured: tokens, steps, parameters, FLOPs, seconds, memory."""

from __future__ import annotations

import functools
import resource
import time
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Result = TypeVar("_Result")
aten = torch.ops.aten


@dataclass
class TrainingCost:
    """One phase of one interface.

    Attributes:
        tokens: tokens seen.
        steps: optimiser steps.
        trainable_parameters: trained by gradient in the phase.
        counted_tokens: tokens of the steps whose FLOPs are known: counted in that step, or in an
            earlier one of the same kind.
        flops_per_token: forward, backward and optimiser of those steps, the teacher included.
        flops: the above times the tokens.
        seconds: wall time, shared steps counted in full.
        peak_memory_bytes: of the process.
    """

    tokens: int = 0
    steps: int = 0
    trainable_parameters: int = 0
    counted_tokens: int = 0
    flops_per_token: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def add(self, tokens: int, seconds: float, flops: float | None) -> None:
        """Count one step; where its FLOPs are known, they say what a token costs."""
        self.tokens += tokens
        self.steps += 1
        self.seconds += seconds
        if flops is not None:
            known = self.flops_per_token * self.counted_tokens
            self.counted_tokens += tokens
            self.flops_per_token = (known + flops) / self.counted_tokens
        self.flops = self.flops_per_token * self.tokens
        self.peak_memory_bytes = peak_memory()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain numbers."""
        return asdict(self)


def count_flops(work: Callable[[], object]) -> float:
    """Run ``work`` once and return its floating-point operations (a multiply-add counts as two)."""
    with _FlopCounter() as counter:
        work()
    return float(counter.flops)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    flops: int = sdpa_backward_flop_count(grad, query, key, value)  # type: ignore[no-untyped-call]
    return flops


# torch's formulas take shapes behind a wrapper that searches all arguments for tensors, which takes
# longer than small products do. Of the CPU's attention torch knows none, and would count zero.
_BY_SHAPE: dict[Any, Callable[..., int]] = {
    **{op: own.__wrapped__ for op, own in flop_registry.items() if hasattr(own, "__wrapped__")},
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch's ``FlopCounterMode`` counts, at a third of its price: not by module."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        result, operation = func(*args, **kwargs), func.overloadpacket
        if operation in _BY_SHAPE:
            own, named = map(_shape, args), {name: _shape(value) for name, value in kwargs.items()}
            self.flops += _BY_SHAPE[operation](*own, **named, out_shape=_shape(result))
        elif operation in flop_registry:
            self.flops += flop_registry[operation](*args, **kwargs, out_val=result)
        return result


def _shape(value: Any) -> Any:
    """Return the shape of a tensor, those of several, or what is none as it is."""
    if isinstance(value, torch.Tensor):
        return value.shape
    return [_shape(own) for own in value] if isinstance(value, list | tuple) else value


@functools.cache
def _is_composite(func: Any) -> bool:
    """Return whether an operation is made of others, which are seen here where it is not run.

    One that has a kernel of its own is run as it is: counting changes no number.
    """
    has, key = torch._C._dispatch_has_kernel_for_dispatch_key, "CompositeImplicitAutograd"
    composite = has(func.name(), key) or getattr(torch._C.DispatchKey, key) in func.py_kernels
    return composite and not has(func.name(), "CPU")


@contextmanager
def rounded_as_ever(early: bool) -> Iterator[None]:
    """Take SiLU's gradient apart on a CPU, as counting FLOPs did in a phase's first steps once.

    So whoever trains a finished run again gets its bits.
    """
    if not early:
        yield
        return
    library: Any = torch.library.Library("aten", "IMPL", "CPU")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        library.impl("silu_backward", aten.silu_backward.default.decompose, allow_override=True)
    try:
        yield
    finally:
        library._destroy()


def peak_memory() -> int:
    """Return the most memory the process has held so far, in bytes (the GPU's if there is one)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start


class Meter:
    """Seconds of the work that is run under it and, where asked for, its FLOPs.

    Attributes:
        seconds: wall time.
        flops: floating-point operations; 0 unless they are counted, which slows the work down.
    """

    def __init__(self, *, flops: bool = False) -> None:
        self.seconds = 0.0
        self.flops = 0.0
        self._counts = flops

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Run ``work`` and return what it returns."""
        clock, results = Stopwatch(), []
        if self._counts:
            self.flops += count_flops(lambda: results.append(work()))
        else:
            results.append(work())
        self.seconds += clock.seconds
        return results[0]
