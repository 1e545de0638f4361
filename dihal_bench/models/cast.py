"""Frozen weights in the dtype that autocast multiplies in: cast once, not at every use."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from dihal_bench.models.loading import is_sharded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from dihal_bench.models.model import Backbone

_SHARE = 0.25  # of the free memory that copies may take


@contextmanager
def cast_once(backbone: Backbone, dtype: torch.dtype, *, enabled: bool = True) -> Iterator[None]:
    """Keep copies of a backbone's matrices for passes under autocast, where memory allows.

    Autocast remembers the casts of trained weights only. The copies are what it would make, so no
    number changes; outside of autocast the weights themselves are used.

    Args:
        backbone: frozen.
        dtype: that autocast computes in.
        enabled: whether to do anything.
    """
    layers = _layers(backbone) if enabled else []
    size = sum(layer.weight.numel() for layer in layers) * dtype.itemsize
    if size > _SHARE * _free_memory(backbone.device):
        layers = []
    for layer in layers:
        bias = None if layer.bias is None else layer.bias.to(dtype)
        layer.__dict__["forward"] = partial(_forward, layer, layer.weight.to(dtype), bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _layers(backbone: Backbone) -> list[nn.Linear]:
    """Return the layers whose weights autocast would cast."""
    if is_sharded(backbone.model):
        return []
    linear = (module for module in backbone.model.modules() if type(module) is nn.Linear)
    return [m for m in linear if m.weight.dtype == torch.float32 and "forward" not in vars(m)]


def _forward(layer: nn.Linear, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == weight.dtype:
        return F.linear(x, weight, bias)
    return F.linear(x, layer.weight, layer.bias)


def _free_memory(device: torch.device) -> float:
    """Return the bytes that nobody uses; without limit where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return float("inf")
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
