"""Which windows of a step have token losses, and what of the teacher is needed for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from dihal_bench.data.tokens import Windows
    from dihal_bench.models.model import Backbone
    from dihal_bench.training.states import KeptStates


def taught_places(share: float, batch: int, *, seed: int, step: int) -> tuple[int, ...] | None:
    """Return the places in a step's batch of the windows that have token losses; None: all.

    Over the steps every place has them equally often, and steps differ by one window at most. In a
    step they lie evenly, so that all passes and processes have about as many. They follow from seed
    and step alone.

    Args:
        share: of the windows that have them, above 0.
        batch: windows per step.
        seed: of the data order.
        step: from 0.
    """
    if share >= 1:
        return None
    begin = np.random.default_rng(seed).random()
    first, after = (math.floor(begin + share * batch * steps) for steps in (step, step + 1))
    turn, count = np.random.default_rng((seed, step)).random(), after - first
    return tuple(math.floor((index + turn) * batch / count) for index in range(count))


def rows_of(taught: tuple[int, ...] | None, places: range) -> tuple[int, ...] | None:
    """Return which rows of a pass they are, that has some ``places`` of the step's batch."""
    if taught is None:
        return None
    return tuple(place - places.start for place in taught if place in places)


@dataclass(frozen=True)
class Pass:
    """Windows of a step that are read at once.

    Attributes:
        places: of theirs in the step's batch.
        indices: of theirs in the text.
        windows: themselves.
        states: what is kept of the teacher's states, if anything.
    """

    places: range
    indices: Sequence[int]
    windows: Windows
    states: KeptStates | None = None


@dataclass(frozen=True)
class Need:
    """What of the teacher is asked for in a step.

    Attributes:
        layers: whose states are read.
        logits: of which windows its logits are: places in the step's batch, or None for all; no
            entry where nobody asks for them.
    """

    layers: frozenset[int]
    logits: frozenset[tuple[int, ...] | None]

    @classmethod
    def of(cls, layers: Iterable[int], taught: tuple[int, ...] | None, *, distils: bool) -> Need:
        """What one trainee needs, whose token losses are taken on the windows ``taught``."""
        return cls(frozenset(layers), frozenset([taught] if distils else []))

    def __or__(self, other: Need) -> Need:
        """What two need together."""
        return Need(self.layers | other.layers, self.logits | other.logits)

    def lesson(self, one: Pass, backbone: Backbone) -> Batch:
        """Run the teacher as far as needed: above the highest layer, for some windows only."""
        known: dict[int, Tensor] = {}
        if one.states is not None and None not in self.logits:
            known = one.states.read(one.indices, self.layers)
        logits = None in self.logits
        batch = Batch.of(one.windows, backbone, layers=self.layers, logits=logits, known=known)
        if one.states is not None:
            new = self.layers - known.keys()
            one.states.write(one.indices, {layer: batch.hidden(layer) for layer in new})
        for rows in {rows_of(taught, one.places) for taught in self.logits}:
            if rows:
                batch.part(rows).go_on()
        return batch
