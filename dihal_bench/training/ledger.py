"""What training really spends, measured: tokens, steps, parameters, FLOPs, seconds, memory."""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

if TYPE_CHECKING:
    from collections.abc import Callable

aten = torch.ops.aten


@dataclass
class Spent:
    """One phase of one interface.

    Attributes:
        tokens: tokens seen.
        steps: optimiser steps.
        trunk_parameters: trainable by gradient.
        closed_form_parameters: estimated without gradients.
        flops_per_token: forward, backward and optimiser of one real step, the teacher included.
        flops: the above times the tokens.
        seconds: wall time, shared steps counted in full.
        peak_memory_bytes: of the process.
    """

    tokens: int = 0
    steps: int = 0
    trunk_parameters: int = 0
    closed_form_parameters: int = 0
    flops_per_token: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def add(self, tokens: int, seconds: float) -> None:
        """Count one step."""
        self.tokens += tokens
        self.steps += 1
        self.seconds += seconds
        self.flops = self.flops_per_token * self.tokens
        self.peak_memory_bytes = peak_memory()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain numbers."""
        return asdict(self)


def count_flops(work: Callable[[], object]) -> float:
    """Run ``work`` once and return its floating-point operations (a multiply-add counts as two).

    torch's counter knows no attention kernel of the CPU; without these entries it would count zero.
    """
    extra = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=extra) as counter:
        work()
    return float(counter.get_total_flops())


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    flops: int = sdpa_backward_flop_count(grad, query, key, value)  # type: ignore[no-untyped-call]
    return flops


def peak_memory() -> int:
    """Return the most memory the process has held so far, in bytes (the GPU's if there is one)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Stopwatch:
    """Seconds since it was last read."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last lap and start the next."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds
