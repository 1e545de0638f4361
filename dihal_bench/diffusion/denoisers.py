"""Denoisers: networks that see noise at their own position and clean context at earlier ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dihal_bench.errors import UserError
from dihal_bench.registry import DENOISERS


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """The trunk that all interfaces share.

    Attributes:
        name: registered denoiser.
        width: channels of the residual stream.
        context_layers: causal layers over the clean condition (run once per sequence).
        layers: denoising layers (run once per network evaluation).
        heads: attention heads.
    """

    name: str = "transformer"
    width: int = 128
    context_layers: int = 2
    layers: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise UserError(f"denoiser.{name}={getattr(self, name)} must be 1 or more.")
        if self.width % (2 * self.heads):
            raise UserError(
                f"denoiser.width={self.width} must be an even multiple of "
                f"denoiser.heads={self.heads}."
            )


class Denoiser(nn.Module, ABC):
    """Maps a noised signal, its level and a clean condition to the network's output, per position.

    Locality is part of the contract: the output at position i depends on the noised signal at i
    alone and on the condition at positions <= i of the same document.
    """

    @abstractmethod
    def encode(self, condition: Tensor, positions: Tensor) -> Any:
        """Digest the condition once.

        Args:
            condition: [B, T, C].
            positions: position ids [B, T]; 0 marks a document's start.

        Returns:
            What ``forward`` wants to see of it; independent of the noise and its level.
        """

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor, context: Any) -> Tensor:
        """Return the output [B, T, D].

        Args:
            z: the noised signal, [B, T, D].
            t: its level in (0, 1], [B, T] or [].
            context: what ``encode`` returned.
        """


def causal_mask(positions: Tensor) -> Tensor:
    """Return which keys a query may see, bool [B, 1, T, T]: not later, and in the same document."""
    document = (positions == 0).cumsum(dim=1)
    same = document[:, :, None] == document[:, None, :]
    length = positions.shape[1]
    order = torch.ones(length, length, dtype=torch.bool, device=positions.device).tril()
    return (same & order)[:, None]


@dataclass(frozen=True)
class Context:
    """The clean stream and, per denoising layer, its keys and values.

    Attributes:
        stream: [B, T, W].
        keys_values: per denoising layer (K, V), each [B, H, T, W/H].
        mask: bool [B, 1, T, T].
        angles: rotary angles [T, W/H/2].
    """

    stream: Tensor
    keys_values: list[tuple[Tensor, Tensor]]
    mask: Tensor
    angles: Tensor


@DENOISERS.register("transformer")
class TransformerDenoiser(Denoiser):
    """A causal encoder of the clean context, then denoising layers that attend to it.

    Layers follow DiT (Peebles and Xie, 2023): the noise level shifts, scales and gates every branch
    (adaLN-zero). Rotary positions are relative, so that documents in one window need no restart.
    """

    def __init__(self, signal: int, condition: int, config: DenoiserConfig):
        super().__init__()
        width, heads = config.width, config.heads
        self.head_dim = width // heads
        self.embed_condition = nn.Linear(condition, width)
        self.embed_signal = nn.Linear(signal, width)
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.encoder = nn.ModuleList(
            _EncoderLayer(width, heads) for _ in range(config.context_layers)
        )
        self.context_norm = nn.RMSNorm(width)
        self.layers = nn.ModuleList(_DenoisingLayer(width, heads) for _ in range(config.layers))
        self.out_norm = nn.RMSNorm(width)
        self.out_modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, signal)
        for module in (self.out_modulation, self.out):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def encode(self, condition: Tensor, positions: Tensor) -> Context:
        """Run the causal encoder over the clean condition; see ``Denoiser.encode``."""
        mask = causal_mask(positions)
        angles = _rotary_angles(positions.shape[1], self.head_dim, condition.device)
        stream = self.embed_condition(condition).to(condition.dtype)  # kept wide under autocast
        for layer in self.encoder:
            stream = layer(stream, mask, angles)
        normed = self.context_norm(stream)
        keys_values = []
        for layer in self.layers:
            assert isinstance(layer, _DenoisingLayer)
            keys_values.append(layer.attention.keys_values(normed, angles))
        return Context(stream, keys_values, mask, angles)

    def forward(self, z: Tensor, t: Tensor, context: Context) -> Tensor:
        """Denoise every position on its own; see ``Denoiser.forward``."""
        level = self.level(_level_features(t, self.out.in_features).to(z.dtype))  # (B, T, W) or (W)
        x = context.stream + self.embed_signal(z)
        for layer, keys_values in zip(self.layers, context.keys_values, strict=True):
            x = layer(x, level, keys_values, context.mask, context.angles)
        shift, scale = self.out_modulation(level).chunk(2, dim=-1)
        out: Tensor = self.out(self.out_norm(x) * (1 + scale) + shift)
        return out


class _Attention(nn.Module):
    """Multi-head attention whose keys and values may be computed beforehand."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def keys_values(self, context: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = (self._split(x) for x in self.kv(context).chunk(2, dim=-1))
        return _rotate(keys, angles), values

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor, angles: Tensor
    ) -> Tensor:
        query = _rotate(self._split(self.q(x)), angles)
        mixed = F.scaled_dot_product_attention(query, *keys_values, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # (B, H, T, W/H)


class _EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = _Attention(width, heads)
        self.mlp = _mlp(width)

    def forward(self, x: Tensor, mask: Tensor, angles: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, self.attention.keys_values(normed, angles), mask, angles)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _DenoisingLayer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.RMSNorm(width, elementwise_affine=False)
        self.norm2 = nn.RMSNorm(width, elementwise_affine=False)
        self.attention = _Attention(width, heads)
        self.mlp = _mlp(width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        keys_values: tuple[Tensor, Tensor],
        mask: Tensor,
        angles: Tensor,
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(level).chunk(6, dim=-1)
        normed = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(normed, keys_values, mask, angles)
        out: Tensor = x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)
        return out


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def _level_features(t: Tensor, width: int) -> Tensor:
    """Sinusoids of the noise level, [..., width]; the slowest spans (0, 1] once."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000.0), width // 2, device=t.device))
    angles = t.float()[..., None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def _rotary_angles(length: int, head_dim: int, device: torch.device) -> Tensor:
    """Return angles [T, d/2] in float64; in float32, far ones depend on more than distance."""
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
    places = torch.arange(length, dtype=torch.float64, device=device)
    return torch.outer(places, torch.exp(pairs * (-math.log(10_000.0) / head_dim)))


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate pairs of channels of ``x`` [B, H, T, d] by ``angles`` [T, d/2] (Su et al., 2021)."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
