"""Who sees whom: the clean places and the noisy places that a denoiser looks at from each place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dihal_bench.diffusion.past import KVCache, visible

if TYPE_CHECKING:
    from collections.abc import Hashable

    from dihal_bench.diffusion.past import Pair


@dataclass(frozen=True)
class Layout:
    """The two regimes as masks, so that a denoiser needs not know them apart.

    Causal: place i sees the clean context up to i and, of the noisy signal, its own place only.
    Sequence: the places of a block see the clean context up to the block's first place, and each
    other. (The signal at a block's first place p belongs to what is generated after token p.)
    Its own noise is a query's input, not a key, so that blocks of one place are the causal regime.

    Attributes:
        positions: position ids [B, T]; 0 marks the start of a document and of the window.
        starts: per place the index in its row of its block's first place, int64 [B, T]; None in the
            causal regime.
        past: what the places before these left, in the causal regime; None: there are none.
    """

    positions: Tensor
    starts: Tensor | None = None
    past: KVCache | None = None

    @classmethod
    def of(
        cls, positions: Tensor, block: int, shift: int | Tensor = 0, past: KVCache | None = None
    ) -> Layout:
        """Return the causal layout for ``block`` = 0, else that of blocks of so many places."""
        return cls.blocks(positions, block, shift) if block else cls(positions, past=past)

    @classmethod
    def blocks(cls, positions: Tensor, size: int, shift: int | Tensor = 0) -> Layout:
        """Cut every document into blocks of ``size`` places; the first has ``size - shift``.

        Args:
            positions: position ids [B, T].
            size: places per block, B.
            shift: 0 to size - 1, a number or a tensor of one.
        """
        first = ((positions + shift) // size * size - shift).clamp(min=0)
        place = torch.arange(positions.shape[1], device=positions.device)
        return cls(positions, place - (positions - first))

    @property
    def documents(self) -> Tensor:
        """Number of the document within its row, [B, T]."""
        return (self.positions == 0).cumsum(dim=1)

    def context_mask(self) -> Tensor:
        """Return which clean places a query may see, bool [B, 1, T, past + T]."""
        place = torch.arange(self.positions.shape[1], device=self.positions.device)
        latest = self.starts if self.starts is not None else place.expand_as(self.positions)
        document = self.documents
        same = document[:, :, None] == document[:, None, :]
        return visible((same & (place <= latest[..., None]))[:, None], self.past)

    def join(self, owner: Hashable, pair: Pair) -> Pair:
        """Return K and V [B, H, T, d] with those that their owner had of the places before."""
        return pair if self.past is None else self.past.join(owner, pair)

    @property
    def before(self) -> int:
        """How many places lie before these."""
        return 0 if self.past is None else self.past.places

    def block_mask(self) -> Tensor | None:
        """Return which other noisy places a query may see, bool [B, 1, T, T]; None: none at all."""
        if self.starts is None:
            return None
        place = torch.arange(self.starts.shape[1], device=self.starts.device)
        same = self.starts[:, :, None] == self.starts[:, None, :]
        return (same & (place[:, None] != place))[:, None]

    @property
    def first(self) -> Tensor:
        """Which places see all clean context before what they generate, bool [B, T]: likelihoods.

        In the causal regime that is all of them, in the sequence regime the first of each block.
        """
        if self.starts is None:
            return torch.ones_like(self.positions, dtype=torch.bool)
        return self.starts == torch.arange(self.starts.shape[1], device=self.starts.device)

    def kept(self, current: Tensor | None = None) -> Tensor:
        """Return which places have signals that were drawn given all that is known, bool [B, T].

        Args:
            current: per row the first place of a block whose tokens are not known, int64 [B].
        """
        if current is None or self.starts is None:
            return self.first
        return self.first | (self.starts == current[:, None])

    def causal(self) -> Layout:
        """Return the same documents without blocks: how clean context is encoded."""
        return Layout(self.positions, past=self.past)

    def at_start(self, values: Tensor) -> Tensor:
        """Return per place what ``values`` [B, T, ...] has at the latest clean place it may see."""
        if self.starts is None:
            return values
        index = self.starts.reshape(*self.starts.shape, *[1] * (values.ndim - 2))
        return values.gather(1, index.expand(*self.starts.shape, *values.shape[2:]))
