"""Readers: fed a text token by token, they say what comes next, by the law that scoring scores.

A chain's noise has the address (document, offset, chain) that it has in scoring, so that the text
that was generated, read in parallel, gives the probabilities that it was drawn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dihal_bench.data.tokens import Windows
from dihal_bench.diffusion.past import KVCache
from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone


class IncrementalDecoder(Protocol):
    """Reads rows of one document each, from their first tokens on."""

    def read(self, tokens: Tensor) -> Tensor:
        """Read the next tokens [B, n] of every row; return logits of what follows them, [B, V]."""


class TeacherDecoder:
    """The backbone itself, through its own key-value cache."""

    def __init__(self, backbone: Backbone):
        self.backbone, self.cache = backbone, backbone.new_cache()

    def read(self, tokens: Tensor) -> Tensor:
        """See ``IncrementalDecoder``."""
        return self.backbone.logits(tokens, cache=self.cache)[:, -1]


@dataclass(frozen=True, kw_only=True)
class Chains:
    """Chains of an interface over rows of one document each.

    Attributes:
        interface: trained.
        documents: number of every row's document, which addresses its noise, int64 [B].
        steps: network evaluations per chain.
        first: number of the first chain.
        count: how many there are.
    """

    interface: Interface
    documents: Tensor
    steps: int
    first: int = 0
    count: int = 1

    def samples(self, batch: Batch, **settings: Any) -> Iterator[Tensor]:
        """Yield the signals of every chain, [B, T, D]; see ``Interface.samples``."""
        last = self.first + self.count
        drawn = self.interface.samples(batch, steps=self.steps, count=last, **settings)
        return islice(drawn, self.first, None)


class CausalReader:
    """An interface in the causal regime: one signal per place and chain, drawn when it is read.

    Every place passes the teacher's lower blocks, the denoiser's context encoder and the recovery
    once: what they need of earlier places is their past, of every chain its own where the recovery
    reads signals.
    """

    def __init__(self, chains: Chains):
        self.chains, self.past, self.rows = chains, KVCache(), chains.documents.cpu()

    def read(self, tokens: Tensor) -> Tensor:
        """See ``IncrementalDecoder``."""
        interface = self.chains.interface
        windows = rows_as_windows(tokens, self.rows, start=self.past.places)
        batch = Batch.of(windows, interface.backbone, past=self.past)
        logits = [
            interface.recover(x0, replace(batch, past=self.past.branch(number)))[:, -1]
            for number, x0 in enumerate(self.chains.samples(batch))
        ]
        self.past.advance(tokens.shape[1])
        return _mean(logits)


class BlockReader:
    """An interface in blocks: signals of a whole block are drawn when its first token is due.

    A block begins at the prompt's last place. The text so far is read anew for each; a block of one
    place is the causal regime, without a past.
    """

    def __init__(self, chains: Chains, *, placeholder: int = 0):
        self.chains, self.interface, self.placeholder = chains, chains.interface, placeholder
        self.rows = chains.documents.cpu()
        self.size = max(1, self.interface.config.block)
        self.start = 0
        self.text: Tensor | None = None
        self.signals: list[Tensor] = []
        self.logits: list[Tensor] = []

    def read(self, tokens: Tensor) -> Tensor:
        """See ``IncrementalDecoder``."""
        if self.text is None:
            self.start, self.text = tokens.shape[1], tokens
        else:
            self.text = torch.cat((self.text, tokens), dim=1)
        known = (self.text.shape[1] - self.start) % self.size  # tokens of the block
        if not known:
            self.signals = list(self._draw())
        if not known or self.interface.decoder_steps:  # a decoder reads the tokens of the block
            batch = self._batch(self.size - 1 - known)
            self.logits = [self.interface.recover(x0, batch) for x0 in self.signals]
        return _mean([logits[:, self.text.shape[1] - 1] for logits in self.logits])

    def _draw(self) -> Iterator[Tensor]:
        """Yield the chains' signals of all places up to the block's end."""
        assert self.text is not None
        batch = self._batch(self.size - 1)
        layout = self.interface.layout(batch, -(self.start - 1) % self.size)
        current = torch.full_like(self.chains.documents, self.text.shape[1] - 1)
        return self.chains.samples(batch, layout=layout, current=current)

    def _batch(self, unknown: int) -> Batch:
        assert self.text is not None
        empty = self.text.new_full((len(self.text), unknown), self.placeholder)
        windows = rows_as_windows(torch.cat((self.text, empty), dim=1), self.rows)
        return Batch.of(windows, self.interface.backbone)


def decoder_of(
    interface: Interface,
    documents: Tensor,
    *,
    steps: int,
    chain: int = 0,
    chains: int = 1,
    placeholder: int = 0,
) -> IncrementalDecoder:
    """Return what reads text for an interface.

    Args:
        interface: trained.
        documents: number of every row's document, which addresses its noise, int64 [B].
        steps: network evaluations per chain.
        chain: number of the first chain.
        chains: how many chains there are, whose mean is the law.
        placeholder: token that stands where none is known yet; nothing depends on it.
    """
    own = Chains(interface=interface, documents=documents, steps=steps, first=chain, count=chains)
    if interface.config.block or not interface.cached:
        return BlockReader(own, placeholder=placeholder)
    return CausalReader(own)


def _mean(logits: list[Tensor]) -> Tensor:
    """Return the logits [B, V] of the mean of the chains' distributions."""
    if len(logits) == 1:
        return logits[0]
    logs = torch.stack([torch.log_softmax(own, dim=-1) for own in logits])
    return torch.logsumexp(logs, dim=0) - math.log(len(logits))


def rows_as_windows(tokens: Tensor, documents: Tensor, *, start: int = 0) -> Windows:
    """Return rows of one document each as the windows that scoring reads.

    Args:
        tokens: int64 [B, T].
        documents: numbers of the documents, int64 [B].
        start: offset of the first token in its document.
    """
    shape, rows = tokens.shape, documents.cpu().numpy()
    place = np.broadcast_to(np.arange(start, start + shape[1]), shape).copy()
    zeros = np.zeros(shape, dtype=np.int64)
    return Windows(
        tokens=tokens.cpu().numpy(),
        positions=place,
        documents=np.broadcast_to(rows[:, None], shape).copy(),
        offsets=place,
        scored=place > 0,
        bytes=zeros,
        words=zeros,
    )
