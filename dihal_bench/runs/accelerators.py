"""What named GPUs would take, by their data sheets: an estimate that nobody measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from dihal_bench.runs.timing import Work

USED, STREAMED = 0.4, 0.7  # shares of the peaks that are assumed to be reached
LAUNCH = 8e-6  # seconds of the host for an operation, at least


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A GPU, as its maker's data sheet has it.

    Attributes:
        name: for people.
        flops: dense bfloat16 FLOP/s, at most.
        bandwidth: bytes per second of its memory, at most.
        memory: bytes.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float

    def seconds(self, work: Work) -> float:
        """Estimate the seconds of counted work: products, then bytes; the host launches meanwhile.

        Args:
            work: whose FLOPs, bytes and operations were counted.
        """
        products = work.flops / (USED * self.flops)
        streams = work.moved / (STREAMED * self.bandwidth)
        return max(products + streams, LAUNCH * work.operations)


ACCELERATORS = {  # dense rates, SXM where there are several
    "a100": Accelerator(name="A100 80GB", flops=312e12, bandwidth=2.039e12, memory=80e9),
    "h100": Accelerator(name="H100", flops=989e12, bandwidth=3.35e12, memory=80e9),
    "h200": Accelerator(name="H200", flops=989e12, bandwidth=4.8e12, memory=141e9),
    "rtx4090": Accelerator(name="RTX 4090", flops=165e12, bandwidth=1.008e12, memory=24e9),
}


def accelerator(name: str) -> Accelerator:
    """Return a GPU by its name.

    Raises:
        UserError: its rates are not known.
    """
    key = name.lower().replace(" ", "").replace("-", "").replace("_", "")
    if key not in ACCELERATORS:
        known = ", ".join(ACCELERATORS)
        raise UserError(f"--for {name}: its rates are not known; choose one of {known}.")
    return ACCELERATORS[key]
