"""What earlier places left for those to come: keys and values, so that no place is read twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    Pair = tuple[Tensor, Tensor]

_SPARE = 64  # places that a store is longer than it has to be, at least


@dataclass
class KVCache:
    """Keys and values of the places before those of a pass, by who made them.

    Every row is one document from its first token on. Places come in passes; whoever keeps
    something here takes part in each of them, once.

    Attributes:
        places: how many there are already.
    """

    places: int = 0
    _stores: dict[Hashable, _Store] = field(default_factory=dict)
    _caches: dict[Hashable, tuple[Any, int]] = field(default_factory=dict)
    _branches: dict[int, KVCache] = field(default_factory=dict)

    def join(self, owner: Hashable, pair: Pair) -> Pair:
        """Add K and V [B, H, T, d] of the pass; return those of all places, [B, H, places + T, d].

        Raises:
            RuntimeError: the owner missed a pass, or took part in this one already.
        """
        store = self._stores.setdefault(owner, _Store())
        self._check(owner, store.length)
        return store.add(pair)

    def cache(self, owner: Hashable, places: int, make: Callable[[], Any]) -> Any:
        """Return the owner's cache, of a kind of its own, which this pass adds ``places`` to.

        Raises:
            RuntimeError: the owner missed a pass, or took part in this one already.
        """
        cache, length = self._caches.get(owner) or (make(), 0)
        self._check(owner, length)
        self._caches[owner] = cache, length + places
        return cache

    def branch(self, number: int) -> KVCache:
        """Return the past of a chain of its own, with as many places."""
        return self._branches.setdefault(number, KVCache(self.places))

    def advance(self, places: int) -> None:
        """End a pass over so many places."""
        self.places += places
        for branch in self._branches.values():
            branch.advance(places)

    def _check(self, owner: Hashable, length: int) -> None:
        if length != self.places:
            raise RuntimeError(
                f"{owner} has seen {length} of {self.places} places: whatever keeps a past must "
                "read every place once"
            )


class _Store:
    """Keys and values in memory that grows by half, so that a place is seldom copied."""

    def __init__(self) -> None:
        self.length = 0
        self._kept: list[Tensor] = []

    def add(self, pair: Pair) -> Pair:
        start, self.length = self.length, self.length + pair[0].shape[2]
        if not self._kept or self._kept[0].shape[2] < self.length:
            self._kept = [self._longer(index, new, start) for index, new in enumerate(pair)]
        for kept, new in zip(self._kept, pair, strict=True):
            kept[:, :, start : self.length] = new
        keys, values = (kept[:, :, : self.length] for kept in self._kept)
        return keys, values

    def _longer(self, index: int, new: Tensor, start: int) -> Tensor:
        rows, heads, _, size = new.shape
        longer = new.new_empty(rows, heads, self.length + max(_SPARE, self.length // 2), size)
        if start:
            longer[:, :, :start] = self._kept[index][:, :, :start]
        return longer


Past = KVCache  # its name in included files of earlier versions


def visible(mask: Tensor, past: KVCache | None) -> Tensor:
    """Return a mask [B, 1, T, T] of the pass's own places with those before, [B, 1, T, P + T].

    All of them are seen: they are earlier places of the same document.
    """
    if past is None or not past.places:
        return mask
    return torch.nn.functional.pad(mask, (past.places, 0), value=True)
