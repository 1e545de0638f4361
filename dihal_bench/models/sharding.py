"""A frozen model whose blocks are spread over several processes, for teachers that do not fit."""

from typing import Any

import torch

from dihal_bench.core import distributed
from dihal_bench.models.cut import path_to_blocks


def shard_blocks(model: Any, device: torch.device) -> None:
    """Freezes a model and spreads the weights of its blocks over all processes, by FSDP2.

    A process holds its share of every block; a block's pass gathers the rest and lets it go again,
    backwards too where a gradient flows through. Embeddings, final norm and head stay whole.

    Args:
        model: A transformers causal language model, on the CPU, where all of it has to fit.
        device: Where this process computes; its shares are placed there block by block.

    Raises:
        UserError: The model has no single list of blocks.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model.requires_grad_(False)
    mesh = init_device_mesh(device.type, (distributed.size(),))
    for block in model.get_submodule(".".join(path_to_blocks(model))):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def is_sharded(model: Any) -> bool:
    """Whether `shard_blocks` has spread a model."""
    if distributed.size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())
