"""Where tensors lie, and how they get there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
