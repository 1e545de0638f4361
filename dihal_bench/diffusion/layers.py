"""Layers that denoisers and decoders are made of; every mask is boolean, true where seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from dihal_bench.diffusion.layout import Layout


class Attention(nn.Module):
    """Multi-head attention whose keys and values may be computed beforehand."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def keys_values(self, context: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Return K and V of ``context`` [B, T, W], each [B, H, T, W/H]."""
        keys, values = (self._split(x) for x in self.kv(context).chunk(2, dim=-1))
        return _rotate(keys, angles), values

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor, angles: Tensor
    ) -> Tensor:
        """Attend from ``x`` [B, T, W] to the keys that ``mask`` [B, 1, T, keys] shows."""
        query = _rotate(self._split(self.q(x)), angles)
        mixed = F.scaled_dot_product_attention(query, *keys_values, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # (B, H, T, W/H)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, pre-norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = feed_forward(width)

    def forward(self, x: Tensor, layout: Layout, mask: Tensor, angles: Tensor) -> Tensor:
        """Return the next layer's input [B, T, W]."""
        normed = self.norm1(x)
        own = self.attention.keys_values(normed, angles)
        x = x + self.attention(normed, layout.join(self.attention, own), mask, angles)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class DenoisingLayer(nn.Module):
    """Attention to clean context and, where there are blocks, to the noisy places of the block.

    As in DiT (Peebles and Xie, 2023), the noise level shifts, scales and gates both branches.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.RMSNorm(width, elementwise_affine=False)
        self.norm2 = nn.RMSNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.mlp = feed_forward(width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        keys_values: tuple[Tensor, Tensor],
        masks: tuple[Tensor, Tensor | None],
        angles: Tensor,
    ) -> Tensor:
        """Return the next layer's input [B, T, W].

        Args:
            x: [B, T, W].
            level: features of the noise level, [B, T, W] or [W].
            keys_values: of the clean context.
            masks: what a query sees of the clean context, and of the noisy places if of any.
            angles: rotary angles.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(level).chunk(6, dim=-1)
        normed = self.norm1(x) * (1 + scale1) + shift1
        mask, block = masks
        if block is not None:
            own = self.attention.keys_values(normed, angles)
            both = [torch.cat(pair, dim=2) for pair in zip(keys_values, own, strict=True)]
            keys_values, mask = (both[0], both[1]), torch.cat((mask, block), dim=-1)
        x = x + gate1 * self.attention(normed, keys_values, mask, angles)
        out: Tensor = x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)
        return out


class PerceptronLayer(nn.Module):
    """A gated residual perceptron, modulated per place by the noise level and the context."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.RMSNorm(width, elementwise_affine=False)
        self.mlp = feed_forward(width)
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the next layer's input [B, T, W]; ``condition`` is [B, T, W]."""
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        out: Tensor = x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)
        return out


class ModulatedOutput(nn.Module):
    """Norm, modulation by the noise level, and a linear map that starts at zero."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, outputs)
        for module in (self.modulation, self.out):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Return [B, T, outputs] of ``x`` [B, T, W]."""
        shift, scale = self.modulation(level).chunk(2, dim=-1)
        out: Tensor = self.out(self.norm(x) * (1 + scale) + shift)
        return out


def feed_forward(width: int) -> nn.Sequential:
    """Return the two-layer perceptron of a layer."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def level_features(t: Tensor, width: int) -> Tensor:
    """Return sinusoids of the noise level, [..., width]; the slowest spans (0, 1] once."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000.0), width // 2, device=t.device))
    angles = t.float()[..., None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def rotary_angles(length: int, head_dim: int, device: torch.device, start: int = 0) -> Tensor:
    """Return angles [T, d/2] of the places ``start``... in float64.

    In float32, far ones depend on more than distance.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
    places = torch.arange(start, start + length, dtype=torch.float64, device=device)
    return torch.outer(places, torch.exp(pairs * (-math.log(10_000.0) / head_dim)))


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate pairs of channels of ``x`` [B, H, T, d] by ``angles`` [T, d/2] (Su et al., 2021)."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
