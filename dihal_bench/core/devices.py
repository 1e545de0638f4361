"""Where tensors lie, and how they get there."""

from __future__ import annotations

import torch
from torch import Tensor


def place(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device.

    An accelerator copies it from pinned memory when its turn comes, and the host goes on: a batch
    is on its way while the one before it is still computed.
    """
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 itself; one that is not here is taken to."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return True
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def usual_dtype(device: str) -> str:
    """Return the dtype of a backbone whose user names none: bfloat16 where that is fast."""
    fast = device.partition(":")[0] == "cuda" and has_bfloat16(torch.device("cuda"))
    return "bfloat16" if fast else "float32"
