"""Noise as a function, not a stream: the same in a window, a prefix loop, any batch, any resume.

Every number is ``Philox4x32-10(key=(seed, purpose), counter=(document, offset, draw, step|lane))``
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), computed with integer tensor
operations, so that CPU and GPU agree. Normals by Box-Muller in float64, uniforms of 52 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LANE_BITS, _STEP_BITS = 20, 12  # of one counter word: 2 million uniforms, 4,095 steps

NORMAL, LEVEL, GUMBEL = 1, 2, 3  # purposes: streams that never meet


@dataclass(frozen=True)
class Noise:
    """Noise addressed by place: ``documents`` and ``offsets`` are int64 tensors of one shape [...].

    Attributes:
        seed: of the run; draws of different seeds are independent.
    """

    seed: int

    def normal(
        self, documents: Tensor, offsets: Tensor, size: int, *, draw: int, step: int = 0
    ) -> Tensor:
        """Return standard normal numbers, float64, shape [..., size]."""
        words = self._words(NORMAL, documents, offsets, (size + 3) // 4, draw, step)
        u = [(w.double() + 0.5) * 2.0**-32 for w in words]  # 32 bits: tails out to 6.7 sigma
        radii = [torch.sqrt(-2 * torch.log(x)) for x in u[:2]]
        angles = [2 * math.pi * x for x in u[2:]]
        numbers = [
            r * f(a) for r, a in zip(radii, angles, strict=True) for f in (torch.cos, torch.sin)
        ]
        return torch.stack(numbers, dim=-1).flatten(-2)[..., :size]

    def uniform(self, documents: Tensor, offsets: Tensor, *, draw: int) -> Tensor:
        """Return one number in (0, 1) per place, float64, shape [...]: the level in training."""
        return self._uniform(LEVEL, documents, offsets, 1, draw, 0)[..., 0]

    def gumbel(self, documents: Tensor, offsets: Tensor, size: int, *, draw: int) -> Tensor:
        """Return standard Gumbel numbers, float64, shape [..., size]: for sampling tokens."""
        return -torch.log(-torch.log(self._uniform(GUMBEL, documents, offsets, size, draw, 0)))

    def _uniform(
        self, purpose: int, documents: Tensor, offsets: Tensor, size: int, draw: int, step: int
    ) -> Tensor:
        words = self._words(purpose, documents, offsets, (size + 1) // 2, draw, step)
        high, low = torch.stack((words[0], words[2]), -1), torch.stack((words[1], words[3]), -1)
        bits = (high >> 6) * (1 << 26) + (low >> 6)  # 52 of them: with the half added still exact
        return ((bits.double() + 0.5) * 2.0**-52).flatten(-2)[..., :size]

    def _words(
        self, purpose: int, documents: Tensor, offsets: Tensor, count: int, draw: int, step: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four 32-bit words of ``count`` calls per place, each of shape [..., count]."""
        lanes = torch.arange(count, device=documents.device)
        assert count <= 1 << _LANE_BITS
        assert 0 <= step < 1 << _STEP_BITS
        assert self.seed >= 0
        counter = [
            documents[..., None] & _MASK,
            offsets[..., None] & _MASK,
            torch.full((), draw & _MASK, device=documents.device),
            lanes + (step << _LANE_BITS),
        ]
        return philox(counter, (self.seed & _MASK, (self.seed >> 32 << 8 | purpose) & _MASK))


def philox(counter: list[Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the ten rounds of Philox4x32.

    Args:
        counter: four int64 tensors that broadcast, with values below 2**32.
        key: two integers below 2**32.

    Returns:
        Four int64 tensors with values below 2**32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """Return the high and low 32 bits of a 32 x 32 bit product, whose sign is its highest bit."""
    product = a * b
    return (product >> 32) & _MASK, product & _MASK
